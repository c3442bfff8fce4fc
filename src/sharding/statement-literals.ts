/**
 * One task: let a statement be analysed once for all texts of its template: its tree keeps no value of a literal, only where it stands,
 * and every literal that is read as a key is noted, to be read from each text anew.
 *
 * Why the verdict is that of the whole text: the scanner reads texts of one template as the same tokens but for the values
 * (statement-template.ts), and the parser's grammar looks at tokens' kinds. Where it looks at a value all the same (`float(25)`), no
 * constant of the tree stands where that literal stands, and the template is given up. So the trees differ in the values of constants
 * alone, and whatever would read one of them other than as a key throws.
 */
import { parseKey } from '../config/key-values.js';
import type { KeyType, KeyValue } from './scheme.js';
import type { ParsedStatement } from './statement-parser.js';
import { unquoted, type LiteralKind, type Template } from './statement-template.js';
import { child, number, text, type Tree } from './statement-tree.js';
import type { KeyExpression } from './statement-verdict.js';

/** A literal that the verdict reads as a key. */
export interface LiteralRead {
  /** index in the template */
  readonly literal: number;
  readonly kind: LiteralKind;
  readonly negated: boolean;
  readonly type: KeyType;
  /** of the column it is assigned to, in characters */
  readonly maxLength: number | null;
  /** of an integer type it is cast to: not below the negative of it, below it */
  readonly limit: bigint | null;
}

/** The verdict on this text depends on a value: it must be analysed whole. */
export class DependsOnValue extends Error {
  override readonly name = 'DependsOnValue';

  /** @param always texts of this template are never analysed otherwise */
  constructor(readonly always: boolean) {
    super('the verdict depends on the value of a literal');
  }
}

interface Stand {
  readonly literals: TemplateLiterals;
  readonly index: number;
  readonly negated: boolean;
}

/** Constants of trees that are being analysed, with the literal each stands for. */
const stands = new WeakMap<Tree, Stand>();

/** The literals of one template while its statement is analysed. */
export class TemplateLiterals {
  readonly reads: LiteralRead[] = [];

  constructor(readonly template: Template) {}

  /**
   * Takes the values out of a statement's tree.
   *
   * @returns false when a literal has no constant in the tree, so that something else was made of it
   */
  takeFrom({ body }: ParsedStatement): boolean {
    const { sql, starts, kinds } = this.template;
    const at = bytePositions(sql, starts);
    const found = new Set<number>();
    const take = (constant: Tree): boolean => {
      const location = number(constant, 'location');
      // A minus just before a number is part of its constant.
      const negated = !at.has(location) && at.has(location + 1) && kinds[at.get(location + 1) ?? -1] !== 'string';
      const index = at.get(negated ? location + 1 : location);
      if (index === undefined) return true;
      if (!isSame(constant, this.template, index, negated)) return false;
      found.add(index);
      hideValue(constant);
      stands.set(constant, { literals: this, index, negated });
      return true;
    };
    return eachConstant(body, take) && found.size === kinds.length;
  }

  /** A literal is read as a key; null: none of its kind is one. */
  key(stand: Stand, type: KeyType, maxLength: number | null, limit: bigint | null): KeyExpression | null {
    const kind = this.template.kinds[stand.index] ?? 'decimal';
    if (kind === 'decimal' || (kind !== 'string' && type !== 'bigint')) return null;
    const read = { literal: stand.index, kind, negated: stand.negated, type, maxLength, limit };
    // Other texts of the template may have a key there.
    if (readLiteral(read, this.template) === null) throw new DependsOnValue(false);
    return { kind: 'literal', index: this.reads.push(read) - 1 };
  }
}

/** The key of a constant without a value; undefined when the constant is as the parser made it. */
export function literalKey(
  constant: Tree,
  type: KeyType,
  maxLength: number | null,
  limit: bigint | null,
): KeyExpression | null | undefined {
  const stand = stands.get(constant);
  return stand?.literals.key(stand, type, maxLength, limit);
}

/** The key that a literal of a text is, as the server converts it; null when it is none. */
export function readLiteral(read: LiteralRead, { sql, starts, ends }: Template): KeyValue | null {
  const written = sql.slice(starts[read.literal], ends[read.literal]);
  if (read.kind !== 'string') return inLimit(parseKey('bigint', read.negated ? `-${written}` : written), read.limit);
  const value = unquoted(written);
  return isLonger(value, read.maxLength) ? null : inLimit(parseKey(read.type, value), read.limit);
}

/** Whether a text has more characters than a `varchar(n)` takes. */
export function isLonger(value: string, maxLength: number | null): boolean {
  return maxLength !== null && value.length > maxLength && Array.from(value).length > maxLength;
}

function inLimit(value: KeyValue | null, limit: bigint | null): KeyValue | null {
  if (limit === null || typeof value !== 'bigint') return value;
  return value >= -limit && value < limit ? value : null;
}

/** Where each literal begins in the text's bytes, as the parser counts. */
function bytePositions(sql: string, starts: readonly number[]): ReadonlyMap<number, number> {
  let [bytes, from] = [0, 0];
  return new Map(
    starts.map((start, index) => {
      bytes += Buffer.byteLength(sql.slice(from, start));
      from = start;
      return [bytes, index] as const;
    }),
  );
}

/** @returns false as soon as `visit` does */
function eachConstant(value: unknown, visit: (constant: Tree) => boolean): boolean {
  if (typeof value !== 'object' || value === null) return true;
  for (const [key, inside] of Object.entries(value)) {
    const whole = key === 'A_Const' ? visit(inside as Tree) : eachConstant(inside, visit);
    if (!whole) return false;
  }
  return true;
}

/** Whether the constant is the literal, and nothing that the grammar has put in its place. */
function isSame(constant: Tree, { sql, starts, ends, kinds }: Template, index: number, negated: boolean): boolean {
  const written = sql.slice(starts[index], ends[index]);
  const integer = child(constant, 'ival');
  switch (kinds[index]) {
    case 'string':
      return !negated && text(child(constant, 'sval'), 'sval') === unquoted(written);
    case 'integer':
      return integer !== null && number(integer, 'ival') === (negated ? 0 - Number(written) : Number(written));
    default:
      return text(child(constant, 'fval'), 'fval') === (negated ? `-${written}` : written);
  }
}

/** The kind stays to be seen; who reads the value is told that it must not. */
function hideValue(constant: Tree): void {
  const get = (): never => {
    throw new DependsOnValue(true);
  };
  for (const kind of ['ival', 'fval', 'sval'])
    if (child(constant, kind) !== null)
      Object.defineProperty(constant, kind, { value: Object.defineProperty({}, kind, { get }), enumerable: true });
}
