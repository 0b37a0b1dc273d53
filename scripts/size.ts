/** Prints what each subpath of the built package weighs in an application's bundle. */
import { sizes } from './bundle.js';

const rows = await sizes();
const width = Math.max(...rows.map(({ name }) => name.length));
console.log(`${'bytes'.padEnd(width)} ${'minified'.padStart(10)} ${'gzipped'.padStart(10)}`);
for (const { name, minified, gzipped } of rows) {
  console.log(`${name.padEnd(width)} ${String(minified).padStart(10)} ${String(gzipped).padStart(10)}`);
}
