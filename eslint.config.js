import js from '@eslint/js';
import { defineConfig, globalIgnores } from 'eslint/config';
import tseslint from 'typescript-eslint';

const node = (name, instead) => ({ name, message: `Core runs on every JavaScript runtime: ${instead}` });

export default defineConfig(
  // Next.js, and what is about to be released, are installed by scripts/check-next.ts and check-versions.ts alone.
  globalIgnores([
    'dist/',
    'coverage/',
    'examples/prisma/generated/',
    'examples/next/',
    'scripts/versions/next/',
    'docs/.vitepress/{cache,dist}/',
  ]),
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      '@typescript-eslint/consistent-type-exports': 'error',
      '@typescript-eslint/no-import-type-side-effects': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/only-throw-error': 'error',
      '@typescript-eslint/no-floating-promises': [
        'error',
        // Its runner waits for what it was given.
        { allowForKnownSafeCalls: [{ from: 'package', name: 'test', package: 'node:test' }] },
      ],
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/no-invalid-void-type': ['error', { allowAsThisParameter: true }],
      eqeqeq: 'error',
      // `_` marks a parameter that a signature asks for and a body does not.
      '@typescript-eslint/no-unused-vars': [
        'error',
        { argsIgnorePattern: '^_', varsIgnorePattern: '^_', caughtErrors: 'all' },
      ],
      // Counters and sizes are put into messages everywhere; everything else must say how it is written.
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      // `while (true)` is how a loop that ends from within is written.
      '@typescript-eslint/no-unnecessary-condition': [
        'error',
        { allowConstantLoopConditions: 'only-allowed-literals' },
      ],
      // It would rewrite `as string` into `!`, which is forbidden in src.
      '@typescript-eslint/non-nullable-type-assertion-style': 'off',
      // A contract is asynchronous even where an implementation of it (the memory store) has nothing to await.
      '@typescript-eslint/require-await': 'off',
      // `{ …, publish: async () => {} }`: a fake or a no-op is a normal value of a contract.
      '@typescript-eslint/no-empty-function': 'off',
    },
  },
  {
    files: ['src/core/**/*.ts', 'src/{index,adapter}.ts'],
    rules: {
      'no-restricted-globals': [
        'error',
        node('process', 'take what is needed as an option.'),
        node('Buffer', 'use Uint8Array, TextEncoder and TextDecoder.'),
        node('global', 'use globalThis.'),
        node('setImmediate', 'use setTimeout or queueMicrotask.'),
        node('clearImmediate', 'use clearTimeout.'),
        node('require', 'core imports nothing but core.'),
        node('module', 'core imports nothing but core.'),
        node('__dirname', 'core reads no files.'),
        node('__filename', 'core reads no files.'),
      ],
      // `globalThis.process` is the same thing by another name; `NodeJS.Timeout` would put
      // `@types/node` into the declarations.
      'no-restricted-properties': [
        'error',
        { object: 'globalThis', property: 'process', message: 'Core runs on every JavaScript runtime.' },
        { object: 'globalThis', property: 'Buffer', message: 'Core runs on every JavaScript runtime.' },
      ],
      'no-restricted-syntax': [
        'error',
        {
          selector: 'TSQualifiedName[left.name="NodeJS"]',
          message: 'Core must type-check without @types/node: use ReturnType<typeof setTimeout>.',
        },
      ],
    },
  },
  {
    // Everything else that is published: what the process is given comes in through options; the
    // command line alone reads the process.
    files: ['src/**/*.ts'],
    ignores: ['src/core/**', 'src/{index,adapter}.ts', 'src/cli/**'],
    rules: {
      'no-restricted-globals': [
        'error',
        { name: 'process', message: 'Take what is needed as an option; src/cli alone reads the process.' },
      ],
    },
  },
  {
    // Tests look at replies of servers and at deliberately wrong values; that they are what the test
    // says is what the assertion is for.
    files: ['test/**/*.ts', 'bench/**/*.ts', 'examples/**/*.ts'],
    rules: {
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/no-unnecessary-condition': 'off',
    },
  },
  {
    files: ['**/*.js', '**/*.mjs', '**/*.cjs'],
    languageOptions: {
      globals: { process: 'readonly', console: 'readonly', URL: 'readonly', module: 'writable', require: 'readonly' },
    },
  },
);
