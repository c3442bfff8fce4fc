/** One task: write a statement once and render it with constants or with parameters, as text and in binary. */
import type { Random } from '../history/random.js';

/** One value of a statement, in each form a client may send it. */
export interface Value {
  /** as a constant in SQL, without a cast */
  readonly constant: string;
  /** `pg_type.typname`, for a cast */
  readonly type: string;
  readonly oid: number;
  /** as a parameter; null: NULL */
  readonly text: string | null;
  /** as a parameter in binary; null: NULL, or only as text */
  readonly bytes: Buffer | null;
}

interface Cast {
  readonly cast: Value;
}

export type Part = Value | Cast | Sql | string;

/** A statement in pieces: plain strings are SQL, values may become parameters. */
export interface Sql {
  readonly parts: readonly Part[];
}

export function sql(texts: TemplateStringsArray, ...parts: readonly Part[]): Sql {
  return { parts: texts.flatMap((text, index) => [text, ...parts.slice(index, index + 1)]) };
}

/** A value whose type is written beside it: where PostgreSQL would not infer it. */
export function cast(value: Value): Cast {
  return { cast: value };
}

export function joined(parts: readonly Part[], between: string): Sql {
  return { parts: parts.flatMap((part, index) => (index === 0 ? [part] : [between, part])) };
}

/** A statement as it is sent. */
export interface Rendered {
  readonly text: string;
  readonly values: readonly Value[];
}

export function withConstants(statement: Sql): string {
  return render(statement, (value, typed) =>
    typed ? `${beforeCast(value.constant)}::${value.type}` : value.constant,
  ).trim();
}

/** A minus before a cast would belong to what the cast gives: PostgreSQL documentation, 4.1.6. */
function beforeCast(constant: string): string {
  return constant.startsWith('-') ? `'${constant}'` : constant;
}

/** The same value of the same place is one parameter as often as it stands there. */
export function withParameters(statement: Sql): Rendered {
  const values: Value[] = [];
  const text = render(statement, (value, typed) => {
    const known = values.indexOf(value);
    const number = known < 0 ? values.push(value) : known + 1;
    return `$${number.toString()}${typed ? `::${value.type}` : ''}`;
  });
  return { text: text.trim(), values };
}

function render({ parts }: Sql, write: (value: Value, typed: boolean) => string): string {
  return parts
    .map((part) => {
      if (typeof part === 'string') return part;
      if ('parts' in part) return render(part, write);
      return 'cast' in part ? write(part.cast, true) : write(part, false);
    })
    .join('');
}

/** Formats of parameters: in binary now and then, where the value can be. */
export function formatsOf(values: readonly Value[], random: Random): readonly number[] {
  const some = random.below(2) === 0;
  return values.map(({ bytes }) => (some && bytes !== null && random.below(3) > 0 ? 1 : 0));
}
