/** One task: name every key that is accepted and has no effect. */
import { IGNORED } from './schema.js';
import type { CheckedSource } from './source.js';

/** What happens in its place, where that is not plain. */
const INSTEAD: Readonly<Record<string, string>> = {
  interval: 'Node asks again after 1 s',
  retries: 'Node asks 10 times',
  user_timeout: 'Node cannot set it',
  congestion_control: 'Node cannot set it',
};

/** One sentence a key, in the order of the file; a table of which nothing has an effect is named once. */
export function ignoredKeys(source: CheckedSource<Readonly<Record<string, unknown>>>): string[] {
  const names = Object.entries(source.data).flatMap(([table, value]) => {
    if (value === undefined) return [];
    if (IGNORED['']?.has(table) === true)
      return [{ name: Array.isArray(value) ? `[[${table}]]` : `[${table}]`, instead: undefined }];
    const rows: unknown[] = Array.isArray(value) ? value : [value];
    const keys = new Set(rows.flatMap((row) => Object.keys(row as object)));
    const where = Array.isArray(value) ? `[[${table}]]` : `[${table}]`;
    const ignored = [...keys].filter((key) => IGNORED[table]?.has(key) === true);
    return ignored.map((key) => ({ name: `"${key}" in ${where}`, instead: INSTEAD[key] }));
  });
  return names.map(({ name, instead }) => {
    const reason = instead === undefined ? '' : `: ${instead}`;
    return `${source.file}: ${name} is accepted but not implemented, it has no effect${reason}`;
  });
}
