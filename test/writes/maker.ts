/** One task: choose what generated writes are made of: keys, rows, columns, conditions. The same each time for the same numbers. */
import type { Random } from '../history/random.js';
import { cast, joined, sql, type Part, type Sql, type Value } from './sql.js';
import { EDGES, integer, nothing, numeric, oddUuid, spelled, text, TEXTS, uuid } from './values.js';

const KEYS: readonly [bigint, ...bigint[]] = [
  1n,
  2n,
  3n,
  4n,
  5n,
  6n,
  7n,
  8n,
  9n,
  0n,
  -1n,
  2n ** 31n,
  2n ** 63n - 1n,
  -(2n ** 63n),
];
const SMALL_KEYS: readonly [bigint, ...bigint[]] = [1n, 2n, 3n, 4n, 5n, 6n, 7n, 0n, -1n, 2n ** 31n - 1n];
const EMAILS: readonly [string, ...string[]] = [
  'a@b',
  'c@d',
  "o'neil@x",
  'ü@日本',
  'back\\slash@y',
  ' spaced ',
  '',
  '😀@z',
  'twenty characters 20',
  'E@F',
];
const NEAR_MAX = 12;
const FAR_MAX = 4000;

/** How the rows of a table are made. */
export type TableName =
  'accounts' | 'loose' | 'edges' | 'smalls' | 'people' | 'documents' | 'history' | 'slots' | 'codes' | 'rates';

export const SHARDED: readonly [TableName, ...TableName[]] = [
  'accounts',
  'loose',
  'edges',
  'smalls',
  'people',
  'documents',
  'history',
  'slots',
];

export class Maker {
  constructor(readonly random: Random) {}

  below(limit: number): number {
    return this.random.below(limit);
  }

  happens(oneIn: number): boolean {
    return this.below(oneIn) === 0;
  }

  pick<T>(...choices: readonly [T, ...T[]]): T {
    return this.random.pick([...choices]);
  }

  /** Of two or more, each another. */
  some<T>(count: number, make: () => T, same: (one: T) => string): readonly T[] {
    const found = new Map<string, T>();
    for (let tries = 0; found.size < count && tries < count * 5; tries += 1) {
      const one = make();
      found.set(same(one), one);
    }
    return [...found.values()];
  }

  tenant(): Value {
    const key = this.random.pick([...KEYS]);
    return integer('int8', key, spelled(key, this.random));
  }

  tenants(most: number): readonly Value[] {
    return this.some(
      1 + this.below(most),
      () => this.tenant(),
      ({ text: key }) => key ?? '',
    );
  }

  small(): Value {
    return integer('int4', this.random.pick([...SMALL_KEYS]));
  }

  email(): Value {
    return text(this.random.pick([...EMAILS]), this.random, 'varchar');
  }

  /** @param far of many, so that it is hardly there yet */
  doc(far = false): Value {
    const hex = this.below(far ? FAR_MAX : NEAR_MAX)
      .toString(16)
      .padStart(32, 'c0ffee');
    return this.happens(5) ? oddUuid(hex) : uuid(hex);
  }

  number(limit: number): Value {
    return integer('int4', this.below(limit));
  }

  id(far = false): Value {
    return this.number(far ? FAR_MAX : NEAR_MAX);
  }

  amount(): Value {
    return numeric(this.pick('0', '1', '2.50', '-3.75', '100', '0.0001', '12345678901234567890.5'));
  }

  words(): Value {
    return text(this.random.pick([...TEXTS]), this.random);
  }

  mood(): Value {
    const mood = this.pick('low', 'middle', 'high');
    return { type: 'mood', oid: 0, text: mood, bytes: Buffer.from(mood), constant: `'${mood}'` };
  }

  /** The value of a column that an INSERT gives; the key first. */
  row(table: TableName, far = false): Readonly<Record<string, Value>> {
    switch (table) {
      case 'accounts':
        return {
          tenant_id: this.tenant(),
          id: this.id(far),
          name: this.words(),
          balance: this.amount(),
          mood: this.happens(4) ? absent(this.mood()) : this.mood(),
        };
      case 'loose':
        return { tenant_id: this.happens(4) ? nothing('int8') : this.tenant(), n: this.number(30), v: this.words() };
      case 'edges':
        return { tenant_id: this.tenant(), id: this.id(far), ...this.edges() };
      case 'smalls':
        return {
          tenant_id: this.small(),
          code: text(`c${this.below(far ? FAR_MAX : NEAR_MAX).toString()}`, this.random),
          n: this.number(9),
        };
      case 'people':
        return {
          email: far ? text(`p${this.below(FAR_MAX).toString()}`, this.random, 'varchar') : this.email(),
          name: this.words(),
          age: this.number(99),
        };
      case 'documents':
        return { doc: this.doc(far), title: this.words(), size: this.number(99) };
      case 'history':
        return { tenant_id: this.tenant(), day: this.number(far ? FAR_MAX : 40), body: this.words() };
      case 'slots':
        return { tenant_id: this.tenant(), holder: this.id(far), slot: integer('int4', 10 + this.below(1_000_000)) };
      case 'codes':
        return {
          code: this.number(far ? FAR_MAX : 30),
          label: this.words(),
          price: numeric(this.pick('0', '1.25', '9999999999.99')),
        };
      case 'rates':
        return {
          name: text(`r${this.below(far ? FAR_MAX : NEAR_MAX).toString()}`, this.random),
          rate: this.number(50),
        };
    }
  }

  /** Values at the edges of their types for some columns of `edges`. */
  edges(): Readonly<Record<string, Value>> {
    const names = this.some(
      1 + this.below(6),
      () => this.random.pick(Object.keys(EDGES) as [string, ...string[]]),
      (name) => name,
    );
    return Object.fromEntries(names.map((name) => [name, this.edge(name)]));
  }

  edge(column: string): Value {
    const make = EDGES[column];
    if (make === undefined) throw new Error(`there is no column ${column}`);
    return this.happens(8) ? absent(make(this.random)) : make(this.random);
  }

  /** Rows with the same columns in the same order. */
  rows(table: TableName, count: number, far = false): readonly Readonly<Record<string, Value>>[] {
    const identity = (row: Readonly<Record<string, Value>>): string =>
      Object.entries(row)
        .slice(0, table === 'people' || table === 'documents' || table === 'codes' || table === 'rates' ? 1 : 2)
        .map(([, { text: written }]) => written?.toLowerCase() ?? '')
        .join('|');
    const [first = {}, ...others] = this.some(count, () => this.row(table, far), identity);
    const columns = Object.keys(first);
    return [first, ...others].map((row) =>
      Object.fromEntries(columns.map((column) => [column, row[column] ?? this.edge(column)])),
    );
  }

  /** `INSERT INTO … VALUES …` of some rows, in any order of the columns. */
  insert(table: TableName, rows: readonly Readonly<Record<string, Value>>[]): Sql {
    const columns = Object.keys(rows[0] ?? {});
    if (this.happens(2)) columns.reverse();
    const values = rows.map(
      (row) =>
        sql`(${joined(
          columns.map((column) => this.given(row[column])),
          ', ',
        )})`,
    );
    return sql`INSERT INTO ${table} (${columns.join(', ')}) VALUES ${joined(values, ', ')}`;
  }

  private given(value: Value | undefined): Part {
    if (value === undefined) return 'DEFAULT';
    return value.oid !== 0 && value.constant !== 'NULL' && this.happens(6) ? cast(value) : value;
  }

  /** That a key is this one, in a way the router follows. */
  is(column: string, key: Value): Sql {
    switch (this.below(8)) {
      case 0:
        return sql`${column} IN (${key})`;
      case 1:
        return sql`${key} = ${column}`;
      case 2:
        return sql`${column} = ${cast(key)}`;
      case 3:
        return sql`${column} IS NOT DISTINCT FROM ${key}`;
      case 4:
        return sql`${column} = ANY (ARRAY[${cast(key)}])`;
      default:
        return sql`${column} = ${key}`;
    }
  }

  returning(...choices: readonly [string, ...string[]]): string {
    return this.pick('', ` RETURNING ${this.pick(...choices)}`, ' RETURNING *');
  }
}

/** NULL of the same type. */
function absent(value: Value): Value {
  return { ...value, text: null, bytes: null, constant: 'NULL' };
}
