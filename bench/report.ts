import { writeFile } from 'node:fs/promises';
import Table from 'cli-table3';

/** One figure, beside the floor that was measured in the same run. */
export interface Row {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /**
   * What it stands beside in this run: the same work done barely, by one relay, by another library, or
   * under easier conditions, as docs/more/benchmarks.md says of each. Null where there is nothing.
   */
  readonly floor: number | null;
  /** value / floor */
  readonly ratio: number | null;
}

export function row(name: string, value: number, unit: string, floor: number | null = null): Row {
  return { name, value, unit, floor, ratio: floor === null || floor === 0 ? null : value / floor };
}

export function print(rows: readonly Row[]): void {
  const table = new Table({
    head: ['name', 'value', 'floor', 'ratio', 'unit'],
    style: { head: [], border: [] },
    colAligns: ['left', 'right', 'right', 'right', 'left'],
  });
  for (const { name, value, unit, floor, ratio } of rows) {
    table.push([
      name,
      number(value),
      floor === null ? '' : number(floor),
      ratio === null ? '' : ratio.toFixed(2),
      unit,
    ]);
  }
  console.log(table.toString());
}

export async function writeJson(file: string, rows: readonly Row[]): Promise<void> {
  await writeFile(file, `${JSON.stringify(rows, null, 2)}\n`);
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? NaN;
}

export function percentile(values: readonly number[], fraction: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * fraction))] ?? NaN;
}

function number(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString('en') : value.toPrecision(3);
}
