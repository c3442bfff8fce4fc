/** One task: find the column that a name in a statement means, as PostgreSQL's name resolution does, or say that it is not known. */
import type { ColumnNode } from './statement-graph.js';

/** What a name leads to: a column that may be linked, or one of which nothing is known but that it is there. */
export type ScopeColumn = ColumnNode | null;

/** One entry of FROM. */
export interface ScopeTable {
  readonly alias: string;
  /** schema, for `schema.table.column`; null for anything but a table without an alias */
  readonly schema: string | null;
  /** null: its columns are not known (a function, a recursive CTE) */
  readonly columns: ReadonlyMap<string, ScopeColumn> | null;
}

/** The tables visible at one place of FROM, with the columns that USING has merged. */
export interface Namespace {
  readonly tables: readonly ScopeTable[];
  readonly merged: ReadonlyMap<string, ScopeColumn>;
}

export const EMPTY_NAMESPACE: Namespace = { tables: [], merged: new Map() };

export function joined(left: Namespace, right: Namespace): Namespace {
  return {
    tables: [...left.tables, ...right.tables],
    merged: new Map([...right.merged, ...left.merged]),
  };
}

export type Resolution =
  | { readonly kind: 'column'; readonly column: ScopeColumn }
  /** a column that every table has: its value says where a row lies */
  | { readonly kind: 'physical' }
  /** an alias of the result, a whole row, a column of a table whose columns are not known: harmless, but no link */
  | { readonly kind: 'open' }
  /** `t.f` where t has no column f: may call a function f(t) */
  | { readonly kind: 'unknown' };

const PHYSICAL = new Set(['ctid', 'xmin', 'xmax', 'cmin', 'cmax', 'tableoid']);

/** Namespaces from the inside out: those of the query itself, then of the queries around it. */
export type Scope = readonly Namespace[];

export function resolve(scope: Scope, name: readonly string[]): Resolution {
  const column = name.at(-1) ?? '';
  const qualifier = name.at(-2);
  return qualifier === undefined ? resolveBare(scope, column) : resolveQualified(scope, name.at(-3), qualifier, column);
}

function resolveQualified(scope: Scope, schema: string | undefined, alias: string, column: string): Resolution {
  for (const { tables } of scope) {
    const table = tables.find((entry) => entry.alias === alias && (schema === undefined || entry.schema === schema));
    if (table === undefined) continue;
    if (table.columns === null) return { kind: 'open' };
    const found = table.columns.get(column);
    if (found !== undefined) return { kind: 'column', column: found };
    return PHYSICAL.has(column) ? { kind: 'physical' } : { kind: 'unknown' };
  }
  return { kind: 'unknown' };
}

function resolveBare(scope: Scope, column: string): Resolution {
  for (const { tables, merged } of scope) {
    const together = merged.get(column);
    if (together !== undefined) return { kind: 'column', column: together };
    const holders = tables.flatMap(({ columns }) => {
      const found = columns?.get(column);
      return found === undefined ? [] : [found];
    });
    // Two holders: PostgreSQL calls it ambiguous.
    if (holders.length > 1) return { kind: 'open' };
    if (holders[0] !== undefined) return { kind: 'column', column: holders[0] };
    if (PHYSICAL.has(column) && tables.length > 0) return { kind: 'physical' };
    // It may be a column of the table whose columns are not known: nothing further out is meant then.
    if (tables.some(({ columns }) => columns === null)) return { kind: 'open' };
  }
  return { kind: 'open' };
}

/** The column a bare name means in one part of FROM: what USING needs. Null where there is none or where it is not known. */
export function columnIn(namespace: Namespace, column: string): ScopeColumn {
  const found = resolveBare([namespace], column);
  return found.kind === 'column' ? found.column : null;
}

/** All names visible without a qualifier; null where some table's are not known. */
export function visibleNames(namespace: Namespace): ReadonlySet<string> | null {
  const names = new Set(namespace.merged.keys());
  for (const { columns } of namespace.tables) {
    if (columns === null) return null;
    for (const name of columns.keys()) names.add(name);
  }
  return names;
}
