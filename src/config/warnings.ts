/** One task: name every key that is accepted and has no effect. */
import { IGNORED } from './schema.js';
import type { CheckedSource } from './source.js';

/** One sentence a key, in the order of the file; a table of which nothing has an effect is named once. */
export function ignoredKeys(source: CheckedSource<Readonly<Record<string, unknown>>>): string[] {
  const names = Object.entries(source.data).flatMap(([table, value]) => {
    if (value === undefined) return [];
    if (IGNORED['']?.has(table) === true) return [Array.isArray(value) ? `[[${table}]]` : `[${table}]`];
    const rows: unknown[] = Array.isArray(value) ? value : [value];
    const keys = new Set(rows.flatMap((row) => Object.keys(row as object)));
    const where = Array.isArray(value) ? `[[${table}]]` : `[${table}]`;
    return [...keys].filter((key) => IGNORED[table]?.has(key) === true).map((key) => `"${key}" in ${where}`);
  });
  return names.map((name) => `${source.file}: ${name} is accepted but not implemented, it has no effect`);
}
