/**
 * One task: read the parser's tree without trusting its shape.
 *
 * The tree is JSON made from PostgreSQL's own parse nodes; a field that has its default value (0, '', false) is left out.
 */

export type Tree = Readonly<Record<string, unknown>>;

export function asTree(value: unknown): Tree | null {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Tree) : null;
}

/** The node below `key`, or null. */
export function child(tree: Tree | null, key: string): Tree | null {
  return tree === null ? null : asTree(tree[key]);
}

/** The nodes of a list field; empty where the field is absent. */
export function list(tree: Tree | null, key: string): readonly Tree[] {
  const value = tree?.[key];
  return Array.isArray(value) ? value.map(asTree).filter((entry) => entry !== null) : [];
}

/** A text field; null where it is absent. */
export function text(tree: Tree | null, key: string): string | null {
  const value = tree?.[key];
  return typeof value === 'string' ? value : null;
}

export function number(tree: Tree | null, key: string): number {
  const value = tree?.[key];
  return typeof value === 'number' ? value : 0;
}

export function flag(tree: Tree | null, key: string): boolean {
  return tree?.[key] === true;
}

/** The texts of a list of String nodes: a qualified name, an operator, column aliases. */
export function strings(tree: Tree | null, key: string): readonly string[] {
  return list(tree, key).map((entry) => text(child(entry, 'String'), 'sval') ?? '');
}

/** The only key of a node: its kind, with the node itself. */
export function kindOf(node: Tree): readonly [kind: string, body: Tree] {
  const kind = Object.keys(node)[0] ?? '';
  return [kind, asTree(node[kind]) ?? {}];
}

/** The columns of a ColumnRef as written; null for `*`, `t.*` and whatever else is not a plain name. */
export function columnName(node: Tree | null): readonly string[] | null {
  const reference = child(node, 'ColumnRef');
  if (reference === null) return null;
  const fields = list(reference, 'fields').map((field) => text(child(field, 'String'), 'sval'));
  return fields.length > 0 && fields.every((field) => field !== null) ? fields : null;
}

/** The name of an operator without its schema; null where the schema is not PostgreSQL's own. */
export function operatorName(expression: Tree): string | null {
  const names = strings(expression, 'name');
  if (names.length === 1) return names[0] ?? null;
  return names.length === 2 && names[0] === 'pg_catalog' ? (names[1] ?? null) : null;
}

/** Calls `visit` for every node below and including `value`; where `visit` answers true, that node's inside is passed over. */
export function walk(value: unknown, visit: (kind: string, body: Tree) => boolean): void {
  if (Array.isArray(value)) {
    for (const entry of value) walk(entry, visit);
    return;
  }
  const tree = asTree(value);
  if (tree === null) return;
  for (const [key, inside] of Object.entries(tree)) {
    const body = asTree(inside);
    // Node kinds begin with a capital letter, fields do not.
    if (body !== null && /^[A-Z]/.test(key) && visit(key, body)) continue;
    walk(inside, visit);
  }
}
