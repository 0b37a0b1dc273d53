import path from 'node:path';
import ts from 'typescript';
import tsconfig from '../../tsconfig.json' with { type: 'json' };

const root = path.join(import.meta.dirname, '../..');
const entries = Object.entries(tsconfig.compilerOptions.paths).map(([subpath, [file = '']]) => ({
  subpath,
  file: path.join(root, file),
}));
const program = ts.createProgram([...entries.map(({ file }) => file), path.join(root, 'src/cli/main.ts')], {
  target: ts.ScriptTarget.ES2022,
  lib: ['lib.es2023.d.ts'],
  module: ts.ModuleKind.NodeNext,
  types: ['node'],
  strict: true,
  skipLibCheck: true,
  stripInternal: true,
});
const checker = program.getTypeChecker();

/** What the package exports, by what it is called and where. */
export const symbols = entries.flatMap(({ subpath, file }) =>
  checker.getExportsOfModule(moduleOf(file)).map((symbol) => ({ subpath, name: symbol.name, symbol: target(symbol) })),
);

/** The names of what can be set: what each public interface of options adds to those that it extends. */
export const options = new Map(
  symbols
    .filter(({ name, symbol }) => name.endsWith('Options') && (symbol.flags & ts.SymbolFlags.Value) === 0)
    .map(({ name, symbol }) => [name, ownProperties(symbol)]),
);

/** The literals of a public type: of one that is a union of texts, or of the property by which a union is told apart. */
export function literalsOf(name: string, property?: string): string[] {
  const found = symbols.find((each) => each.name === name);
  if (found === undefined) throw new Error(`the package does not export ${name}`);
  const type = checker.getDeclaredTypeOfSymbol(found.symbol);
  const tag = property === undefined ? undefined : checker.getPropertyOfType(type, property);
  const literals = tag === undefined ? type : checker.getTypeOfSymbol(tag);
  return (literals.isUnion() ? literals.types : []).flatMap((each) => (each.isStringLiteral() ? [each.value] : []));
}

function moduleOf(file: string): ts.Symbol {
  const source = program.getSourceFile(file);
  const symbol = source && checker.getSymbolAtLocation(source);
  if (symbol === undefined) throw new Error(`${file} exports nothing`);
  return symbol;
}

function target(symbol: ts.Symbol): ts.Symbol {
  return symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
}

function ownProperties(symbol: ts.Symbol): string[] {
  if (symbol.flags & ts.SymbolFlags.Interface)
    return [...(symbol.members?.keys() ?? [])].map(String).filter(isProperty);
  const type = checker.getDeclaredTypeOfSymbol(symbol);
  const types = type.isUnion() ? type.types : [type];
  return [...new Set(types.flatMap((each) => checker.getPropertiesOfType(each).map(({ name }) => name)))];
}

/** Not a type parameter, which is a member of its interface too. */
function isProperty(name: string): boolean {
  return /^[a-z]/.test(name);
}
