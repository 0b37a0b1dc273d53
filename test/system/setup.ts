import type { TestProject } from 'vitest/node';
import { findPrograms } from './programs.js';

declare module 'vitest' {
  interface ProvidedContext {
    /** The folder with PostgreSQL's programs, those for moving databases included. */
    programs: string;
  }
}

/** Finds the programs before any test, or ends the run and says what to install. */
export default async function setup(project: TestProject): Promise<void> {
  project.provide('programs', await findPrograms());
}
