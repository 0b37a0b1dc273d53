/** Prints each mutant that survives as soon as that is known. So even an interrupted run says something. */
import { readFileSync } from 'node:fs';
import path from 'node:path';

export interface Tested {
  readonly fileName: string;
  readonly location: { readonly start: { readonly line: number } };
  readonly mutatorName: string;
  readonly replacement?: string | undefined;
  readonly status: string;
}

/** Whether no test noticed the mutant. */
export function isAlive({ status }: Tested): boolean {
  return status === 'Survived' || status === 'NoCoverage';
}

function tell(mutant: Tested): void {
  if (!isAlive(mutant)) return;
  const { fileName, location, mutatorName, replacement = '', status } = mutant;
  const { line } = location.start;
  const text = readFileSync(fileName, 'utf8').split('\n')[line - 1]?.trim() ?? '';
  const what = `${mutatorName}${status === 'NoCoverage' ? ', which no test reaches' : ''}`;
  const place = `${path.relative(process.cwd(), fileName)}:${String(line)}`;
  console.log(`survived: ${place} ${what}\n    ${text}\n    → ${replacement.replace(/\s+/g, ' ')}`);
}

/** Stryker loads it by this name. */
export const strykerPlugins = [
  { kind: 'Reporter', name: 'survivors', factory: Object.assign(() => ({ onMutantTested: tell }), { inject: [] }) },
];
