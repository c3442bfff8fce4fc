/** One task: make SELECT statements from a number: joins of every kind, subqueries, WITH, keys that agree and keys that almost do. */

/** Tables of routing-context.ts, with the two columns of each that conditions are made of: the key and another number. */
const TABLES = [
  { name: 'tenants', key: 'tenant_id', other: 'tenant_id' },
  { name: 'orders', key: 'tenant_id', other: 'id' },
  { name: 'items', key: 'tenant_id', other: 'order_id' },
  { name: 'products', key: 'id', other: 'id' },
] as const;

/** Tenants that the generated statements speak of, and the data of the tests has. */
export const TENANTS = [0, 1, 2, 3, 4, 5, 6, 7];

const JOINS = ['JOIN', 'JOIN', 'JOIN', 'LEFT JOIN', 'LEFT JOIN', 'RIGHT JOIN', 'FULL JOIN'] as const;
const DEPTH_MAX = 2;

/** One table in FROM, as conditions name its columns. */
interface Visible {
  readonly key: string;
  readonly other: string;
}

/** The statement of a seed; the same each time. Its key constants stand as `{n}`: see `withConstants` and `withParameters`. */
export function generatedSelect(seed: number): string {
  return new Generator(seed).statement();
}

export function withConstants(statement: string): string {
  return statement.replace(/\{(\d+)\}/g, '$1');
}

/** The same statement with a parameter for each constant, and their values as text. */
export function withParameters(statement: string): { readonly sql: string; readonly values: readonly string[] } {
  const values: string[] = [];
  const sql = statement.replace(/\{(\d+)\}/g, (_, value: string) => `$${values.push(value).toString()}`);
  return { sql, values };
}

class Generator {
  private state: number;
  private aliases = 0;
  /** most keys of a statement are this one, so that many statements can be proven to need one shard */
  private readonly favourite: string;

  constructor(seed: number) {
    this.state = (seed ^ 0x9e3779b9) >>> 0;
    this.favourite = `{${this.one(TENANTS).toString()}}`;
  }

  statement(): string {
    if (!this.happens(0.2)) return this.select([], 0);
    const inner = this.select([], 1);
    const uses = this.happens(0.5) ? 'c' : 'c JOIN orders z ON z.tenant_id = c.k';
    return `WITH c AS (${inner}) SELECT * FROM ${uses} WHERE ${this.happens(0.7) ? `c.k = ${this.key()}` : 'true'}`;
  }

  /** The result's columns are k and v, whatever is inside. */
  private select(outer: readonly Visible[], depth: number): string {
    const [from, visible] = this.from(outer, depth);
    const first = this.one(visible);
    const where = this.conditions(visible, outer, depth, visible.length + 1);
    const pinned = this.happens(0.7) ? ` AND ${first.key} = ${this.key()}` : '';
    return this.finish(`FROM ${from} WHERE ${where}${pinned}`, this.one(visible), this.one(visible));
  }

  private finish(body: string, a: Visible, b: Visible): string {
    switch (this.below(8)) {
      case 0:
        return `SELECT ${a.key} AS k, count(*) AS v ${body} GROUP BY ${a.key}`;
      case 1:
        return `SELECT DISTINCT ${a.key} AS k, ${b.other} AS v ${body}`;
      case 2:
        return `SELECT ${a.key} AS k, ${b.other} AS v ${body} ORDER BY 1, 2 LIMIT 2`;
      case 3:
        return `SELECT ${a.key} AS k, count(*) OVER () AS v ${body}`;
      case 4:
        return `SELECT ${a.key} AS k, max(${b.other}) AS v ${body} GROUP BY ROLLUP (${a.key})`;
      default:
        return `SELECT ${a.key} AS k, ${b.other} AS v ${body}`;
    }
  }

  private from(outer: readonly Visible[], depth: number): [string, Visible[]] {
    let [text, visible] = this.entry(outer, depth);
    for (let joins = this.below(3); joins > 0; joins -= 1) {
      const [right, added] = this.entry(this.happens(0.3) ? visible : outer, depth);
      const both = [...visible, ...added];
      text = `${text} ${this.one(JOINS)} ${right} ON ${this.link(visible, added)}${this.extra(both, outer, depth)}`;
      visible = both;
      // Parentheses make the tree lean to either side.
      if (this.happens(0.2)) text = `(${text})`;
    }
    return [text, visible];
  }

  private extra(visible: readonly Visible[], outer: readonly Visible[], depth: number): string {
    return this.happens(0.4) ? ` AND ${this.condition(visible, outer, depth)}` : '';
  }

  private link(left: readonly Visible[], right: readonly Visible[]): string {
    const [a, b] = [this.one(left), this.one(right)];
    return this.happens(0.85) ? `${a.key} = ${b.key}` : `${a.other} = ${b.other}`;
  }

  private entry(outer: readonly Visible[], depth: number): [string, Visible[]] {
    const alias = this.alias();
    if (depth < DEPTH_MAX && this.happens(0.2))
      return [`(${this.select([], depth + 1)}) ${alias}`, [{ key: `${alias}.k`, other: `${alias}.v` }]];
    if (outer.length === 0 && depth < DEPTH_MAX && this.happens(0.03))
      return [
        `(${this.select([], depth + 1)} UNION ALL ${this.select([], depth + 1)}) ${alias}`,
        [column(alias, 'k', 'v')],
      ];
    const table = this.one(TABLES);
    return [`${table.name} ${alias}`, [column(alias, table.key, table.other)]];
  }

  private conditions(visible: readonly Visible[], outer: readonly Visible[], depth: number, most: number): string {
    const parts = Array.from({ length: 1 + this.below(most) }, () => this.condition(visible, outer, depth));
    return parts.join(' AND ');
  }

  private condition(visible: readonly Visible[], outer: readonly Visible[], depth: number): string {
    const [a, b] = [this.one(visible), this.one(outer.length > 0 && this.happens(0.6) ? outer : visible)];
    switch (this.below(depth < DEPTH_MAX ? 15 : 11)) {
      case 0:
      case 1:
      case 2:
        return `${a.key} = ${b.key}`;
      case 3:
      case 4:
        return `${a.key} = ${this.key()}`;
      case 5:
        return `${a.key} IN (${this.key()}, ${this.key()})`;
      case 6:
        return `${a.key} IS NOT DISTINCT FROM ${this.key()}`;
      case 7:
        return `(${a.key} = ${this.key()} OR ${b.other} = 1)`;
      case 8:
        return `(${a.key} IS NULL OR ${a.key} = ${b.key})`;
      case 9:
        return `NOT ${a.key} = ${this.key()}`;
      case 10:
        return `${a.other} >= 1`;
      case 11:
        return `EXISTS (${this.select(visible, depth + 1)})`;
      case 12:
        return `NOT EXISTS (${this.select(visible, depth + 1)})`;
      case 13:
        return `${a.key} IN (SELECT s.k FROM (${this.select([], depth + 1)}) s)`;
      default:
        return `${a.key} ${this.happens(0.5) ? '' : 'NOT '}IN (${this.plainSubquery(visible)})`;
    }
  }

  private plainSubquery(outer: readonly Visible[]): string {
    const alias = this.alias();
    const table = this.one(TABLES);
    const own = column(alias, table.key, table.other);
    return `SELECT ${own.key} FROM ${table.name} ${alias} WHERE ${this.condition([own], outer, DEPTH_MAX)}`;
  }

  private key(): string {
    return this.happens(0.85) ? this.favourite : `{${this.one(TENANTS).toString()}}`;
  }

  private alias(): string {
    this.aliases += 1;
    return `t${this.aliases.toString()}`;
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

function column(alias: string, key: string, other: string): Visible {
  return { key: `${alias}.${key}`, other: `${alias}.${other}` };
}
