/** One task: make reads of one table from a number, with every aggregate, clause and type that a part of the rows may answer, and some that it may not. */

export const COLUMNS = `
  tenant_id bigint, region varchar(20), number bigint NOT NULL, i2 smallint, i4 integer, i8 bigint, n numeric, m numeric(12, 3), f float8, b boolean,
  s text, c text COLLATE "C", v varchar(8), d date, t timestamptz, e mood, o positive`;

/** The same rows each time, with nulls, ties, numbers without a value and the largest ones. */
export const FILL = (table: string): string => `
  INSERT INTO ${table}
  SELECT i % 11, (ARRAY['north', 'east', 'south', 'west'])[i % 4 + 1], i % 30, (i * 37 % 200 - 100)::smallint, CASE WHEN i % 9 > 0 THEN i * 7919 % 1000 - 300 END,
    CASE WHEN i % 50 = 7 THEN 9223372036854775807 ELSE i * 104729 END,
    CASE i % 60 WHEN 5 THEN 'NaN'::numeric WHEN 25 THEN NULL ELSE round(i / 7.0, i % 6) END, round(i * 1.37, 3), i % 16 / 4.0::float8, CASE WHEN i % 6 > 0 THEN i % 5 > 0 END,
    CASE WHEN i % 8 > 0 THEN (ARRAY['a', 'B', 'ä', 'b', 'A'])[i % 5 + 1] END, (ARRAY['a', 'B', 'ä'])[i % 3 + 1], 'v' || i % 13, date '2025-01-01' + i % 40,
    timestamptz '2025-03-01 00:00+00' + i * interval '7 hours', (ARRAY['bad', 'fair', 'good'])[i % 3 + 1]::mood, i % 4 + 1
  FROM generate_series(1, 240) i`;

export const TABLES = ['metrics', 'sales', 'readings'] as const;

/** A statement with its constants as `{n}`, and what it is made of. */
export interface Made {
  readonly sql: string;
  readonly classes: readonly string[];
  /** every row has its place */
  readonly ordered: boolean;
}

const SUMMED = [
  'i2',
  'i4',
  'i8',
  'n',
  'm',
  'i4 * 2 - i2',
  'm * i2',
  'i8 / 3',
  'CASE WHEN b THEN m ELSE 0 END',
  'coalesce(n, i4)',
  '-i4',
  'n::numeric(9, 1)',
];
const ANY = ['i2', 'i4', 'n', 'm', 's', 'c', 'v', 'd', 't', 'e', 'o', 'lower(s)', "s || '!'"];
const SPREADS = ['stddev', 'stddev_samp', 'stddev_pop', 'variance', 'var_samp', 'var_pop'];
const GROUPS = [
  's',
  'c',
  'v',
  'd',
  'e',
  'o',
  'i2 % 4',
  'b',
  'lower(s)',
  "date_trunc('month', d)",
  'm > 100',
  'i2::text',
  'region',
  'number % 3',
];
const WHERES = [
  'i4 > {50}',
  'd < {d}',
  's = {a}',
  'b',
  'NOT b OR i2 > {10}',
  'i8 BETWEEN {0} AND {9000000}',
  'e = {good}',
  's IN ({a}, {b})',
  'c LIKE {a}',
  'i4 IS NULL',
  'false',
  'm % 2 = {1}',
];
const VALUES: Readonly<Record<string, string>> = { d: '2025-01-20', a: 'a', b: 'B', good: 'good' };

export function generatedRead(seed: number): Made {
  return new Generator(seed).read();
}

export function withConstants(sql: string): string {
  return sql.replace(/\{(\w+)\}/g, (_, key: string) => (VALUES[key] === undefined ? key : `'${VALUES[key]}'`));
}

export function withParameters(sql: string): { readonly sql: string; readonly values: readonly string[] } {
  const values: string[] = [];
  return {
    sql: sql.replace(/\{(\w+)\}/g, (_, key: string) => `$${values.push(VALUES[key] ?? key).toString()}`),
    values,
  };
}

class Generator {
  private state: number;
  private readonly classes = new Set<string>();

  constructor(seed: number) {
    this.state = (seed * 0x9e3779b1) >>> 0;
  }

  read(): Made {
    const table = this.one(TABLES);
    const from = this.happens(0.3) ? `${table} x` : table;
    const where = this.happens(0.6)
      ? ` WHERE ${this.one(WHERES)}${this.happens(0.2) ? ` AND ${this.one(WHERES)}` : ''}`
      : '';
    return this.happens(0.25) ? this.limited(from, where) : this.aggregated(from, where);
  }

  private limited(from: string, where: string): Made {
    this.classes.add('order by limit');
    const items = this.one(['*', 's, m AS i2, number', 'm + 1, lower(s) AS l, x9.*', 'd::text, n']).replace(
      'x9',
      from.split(' ').at(-1) ?? '',
    );
    const first = this.one(['m', 'd', 's', 'i4', 'c DESC', 'n DESC NULLS LAST', 'lower(s)', 'e', 'i2 % 4', '1']);
    const order = first === '1' && items.includes('*') ? 'm' : first;
    const limit = this.one(['{5}', '{3} OFFSET {4}', '7 OFFSET 2', '0', '{1000}', 'ALL OFFSET 3']);
    // Which of equal rows come is free: all of them are told apart.
    const apart = items.includes('AS i2') ? 'metricless' : 'i8, number, i2, i4, n, m';
    const rest = apart === 'metricless' ? 'i8, number, i4, n, m' : apart;
    return this.made(`SELECT ${items} FROM ${from}${where} ORDER BY ${order}, ${rest}, t LIMIT ${limit}`, true);
  }

  private aggregated(from: string, where: string): Made {
    const groups = Array.from({ length: this.below(3) }, () => this.one(GROUPS)).filter(
      (one, at, all) => all.indexOf(one) === at,
    );
    const aggregates = Array.from({ length: 1 + this.below(3) }, () => this.aggregate());
    const items = [
      ...groups,
      ...aggregates.map((one, at) => (this.happens(0.3) ? `${one} AS a${at.toString()}` : one)),
    ];
    if (groups.length > 0) this.classes.add('group');
    const by = this.happens(0.4) ? groups.map((_, at) => (at + 1).toString()) : groups;
    const group = groups.length === 0 ? '' : ` GROUP BY ${by.join(', ')}`;
    const having = this.happens(0.25) ? ` HAVING ${this.having()}` : '';
    const ordered = this.happens(0.6);
    return this.made(
      `SELECT ${items.join(', ')} FROM ${from}${where}${group}${having}${ordered ? this.order(groups, aggregates) : ''}`,
      ordered,
    );
  }

  private having(): string {
    this.classes.add('having');
    return this.one(['count(*) > {3}', 'sum(i4) IS NOT NULL', 'max(m) > min(m)', 'avg(i2) < {20} OR count(n) = 0']);
  }

  private order(groups: readonly string[], aggregates: readonly string[]): string {
    this.classes.add('order');
    const first = this.one([...groups, this.one(aggregates), '1', groups.length > 0 ? '2' : '1']);
    const direction = this.one(['', ' DESC', ' ASC NULLS FIRST', ' DESC NULLS LAST']);
    const limit = this.happens(0.4)
      ? this.one([' LIMIT 3', ' LIMIT {2} OFFSET 1', ' OFFSET {1}', ' FETCH FIRST 2 ROWS ONLY'])
      : '';
    if (limit !== '') this.classes.add('limit of groups');
    return ` ORDER BY ${[`${first}${direction}`, ...groups].join(', ')}${limit}`;
  }

  private aggregate(): string {
    const call = this.call();
    if (this.happens(0.8)) return call;
    this.classes.add('filter');
    return `${call} FILTER (WHERE ${this.one(WHERES)})`;
  }

  private call(): string {
    switch (this.below(12)) {
      case 0:
      case 1:
        return this.of('count', this.one(['*', ...ANY, 'f']));
      case 2:
      case 3:
        return this.of('sum', this.one(SUMMED));
      case 4:
        return this.of('avg', this.one(SUMMED));
      case 5:
        return this.of('min', this.one(ANY));
      case 6:
        return this.of('max', this.one(ANY));
      case 7:
        return this.of(this.one(['bool_and', 'bool_or', 'every']), this.one(['b', 'i4 > 3', 's = c']));
      case 8:
        return this.of(this.one(['bit_and', 'bit_or']), this.one(['i2', 'i4', 'i8']));
      case 9:
      case 10:
        return this.of(this.one(SPREADS), this.one(SUMMED));
      default:
        this.classes.add('plain');
        return this.one([
          'sum(f)',
          'avg(f)',
          'count(DISTINCT s)',
          'string_agg(s, c ORDER BY i8, number, i4, n)',
          'sum(DISTINCT i4)',
        ]);
    }
  }

  private of(name: string, argument: string): string {
    this.classes.add(SPREADS.includes(name) ? 'spread' : name);
    return `${name}(${argument})`;
  }

  private made(sql: string, ordered: boolean): Made {
    return { sql, classes: [...this.classes], ordered };
  }

  private one<T>(values: readonly T[]): T {
    const value = values[this.below(values.length)];
    if (value === undefined) throw new Error('nothing to choose from');
    return value;
  }

  private happens(probability: number): boolean {
    return this.below(1_000) < probability * 1_000;
  }

  /** mulberry32: the same numbers for a seed everywhere. */
  private below(limit: number): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
  }
}
