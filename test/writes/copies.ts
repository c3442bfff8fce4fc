/** One task: COPY FROM STDIN of generated rows, in each format, with options, and of what every shard has. */
import { binaryOf, csvOf, textOf } from '../proxy/copies.js';
import type { Maker, TableName } from './maker.js';
import type { Value } from './sql.js';
import { nothing } from './values.js';
import type { Make, Unit } from './unit.js';

const COPIED: readonly [TableName, ...TableName[]] = [
  'accounts',
  'loose',
  'edges',
  'smalls',
  'people',
  'documents',
  'history',
  'codes',
];
/** Their values are generated in binary too. */
const ROWS_MAX = 12;

export const COPIES: Readonly<Record<string, Make>> = {
  'COPY in text': (maker) => {
    const { table, columns, rows } = copiedRows(maker);
    const plain = textOf(rows.map((row) => row.map(({ text }) => text)));
    return maker.happens(3)
      ? copy(
          `COPY ${table} (${columns}) FROM STDIN WITH (NULL 'nil', HEADER)`,
          `header\n${plain.replace(/(?<=^|\t)\\N(?=\t|$)/gm, 'nil')}`,
        )
      : copy(`COPY ${table} (${columns}) FROM STDIN`, `${plain}${maker.happens(4) ? '\\.\n' : ''}`);
  },
  'COPY in CSV': (maker) => {
    const { table, columns, rows } = copiedRows(maker);
    const csv = csvOf(rows.map((row) => row.map(({ text }) => text)));
    return maker.happens(3)
      ? copy(
          `COPY ${table} (${columns}) FROM STDIN (FORMAT csv, HEADER match)`,
          `${columns.replaceAll(' ', '')}\n${csv}`,
        )
      : copy(`COPY ${table} (${columns}) FROM STDIN WITH CSV`, maker.happens(2) ? csv : csv.slice(0, -1));
  },
  'COPY in binary': (maker) => {
    const { table, columns, rows } = copiedRows(maker, true);
    return copy(
      `COPY ${table} (${columns}) FROM STDIN (FORMAT binary)`,
      binaryOf(rows.map((row) => row.map(({ bytes }) => bytes))),
    );
  },
};

export function copy(text: string, data: Buffer | string | null): Unit {
  return [{ kind: 'copy', text, data: data === null ? null : Buffer.from(data) }];
}

interface CopiedRows {
  readonly table: TableName;
  readonly columns: string;
  readonly rows: readonly (readonly Value[])[];
}

function copiedRows(maker: Maker, binary = false): CopiedRows {
  const table = maker.pick(...COPIED);
  const rows = maker.rows(table, 1 + maker.below(ROWS_MAX), true);
  const columns = Object.keys(rows[0] ?? {});
  if (maker.happens(2)) columns.reverse();
  const values = rows.map((row) => columns.map((column) => row[column] ?? nothing('text')));
  // What is generated as text only is NULL in binary.
  const kept = binary
    ? values.map((row) => row.map((value) => (value.bytes === null ? { ...value, text: null } : value)))
    : values;
  return { table, columns: columns.join(', '), rows: kept };
}
