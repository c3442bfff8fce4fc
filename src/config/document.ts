/**
 * One task: say where every key of a TOML text stands.
 *
 * smol-toml gives the values but not their places; the syntax tree of `@decimalturn/toml-patch` gives the places. Errors
 * need the line, an edit that keeps comments and formatting needs the characters.
 */
import { parseDocument, type TomlDocument } from '@decimalturn/toml-patch';

/** Keys and indexes from the root, as in `['databases', 1, 'host']`. */
export type Path = readonly (string | number)[];

/** A string value of the text, as `"prod"`, quotes included; offsets are UTF-16 units into `body`. */
export interface StringToken {
  readonly path: Path;
  readonly value: string;
  readonly start: number;
  readonly end: number;
  /** where the line of the value ends (before its line break), or null inside an inline table */
  readonly lineEnd: number | null;
}

export interface TomlPositions {
  /** the text without a byte order mark: what the offsets count in */
  readonly body: string;
  readonly strings: readonly StringToken[];
  /** the line of the key, or of the nearest enclosing table that is in the text; 1 when nothing of the path is */
  lineOf(path: Path): number;
}

type Block = TomlDocument['cst'][number];
type KeyValue = Extract<Block, { equals: number }>;
type Table = Exclude<Extract<Block, { items: unknown }>, KeyValue>;
type Place = KeyValue['loc']['start'];

export const BYTE_ORDER_MARK = '\uFEFF';

/** @throws TypeError when the bytes are not UTF-8, which TOML requires */
export function decodeUtf8(bytes: Uint8Array): string {
  return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
}

export function withoutByteOrderMark(text: string): string {
  return text.startsWith(BYTE_ORDER_MARK) ? text.slice(1) : text;
}

/** @throws Error when the text is not TOML */
export function positionsOf(text: string): TomlPositions {
  const body = withoutByteOrderMark(text);
  const walk = new Walk(body);
  for (const block of parseDocument(body).cst) walk.block(block);
  return { body, strings: walk.strings, lineOf: (path) => walk.lineOf(path) };
}

class Walk {
  readonly strings: StringToken[] = [];
  readonly #lines = new Map<string, number>();
  /** how many `[[name]]` headers of each array were seen */
  readonly #elements = new Map<string, number>();
  readonly #body: string;
  readonly #lineStarts: readonly number[];

  constructor(body: string) {
    this.#body = body;
    this.#lineStarts = [0, ...[...body.matchAll(/\n/g)].map((match) => match.index + 1)];
  }

  lineOf(path: Path): number {
    for (let length = path.length; length > 0; length -= 1) {
      const line = this.#lines.get(JSON.stringify(path.slice(0, length)));
      if (line !== undefined) return line;
    }
    return 1;
  }

  block(block: Block): void {
    if ('equals' in block) this.#keyValue([], block, false);
    else if ('items' in block) this.#table(block);
  }

  #table(table: Table): void {
    const type: string = table.type;
    const isArray = type === 'TableArray';
    const path = this.#resolve(table.key.item.value, isArray);
    this.#lines.set(JSON.stringify(path), table.loc.start.line);
    for (const item of table.items) if ('equals' in item) this.#keyValue(path, item, false);
  }

  /** `[a.b]` after `[[a]]` means the last element of a (TOML 1.0, "Array of Tables"). */
  #resolve(keys: readonly string[], isArray: boolean): Path {
    const path: (string | number)[] = [];
    for (const [depth, key] of keys.entries()) {
      path.push(key);
      const name = JSON.stringify(path);
      const count = this.#elements.get(name);
      if (isArray && depth === keys.length - 1) {
        this.#elements.set(name, (count ?? 0) + 1);
        path.push(count ?? 0);
      } else if (count !== undefined) {
        path.push(count - 1);
      }
    }
    return path;
  }

  #keyValue(parent: Path, keyValue: KeyValue, inline: boolean): void {
    const path = [...parent, ...keyValue.key.value];
    this.#lines.set(JSON.stringify(path), keyValue.loc.start.line);
    this.#value(path, keyValue.value, inline);
  }

  #value(path: Path, value: KeyValue['value'], inline: boolean): void {
    if ('items' in value) {
      for (const [index, { item }] of value.items.entries()) {
        if ('equals' in item) this.#keyValue(path, item as KeyValue, true);
        else this.#element([...path, index], item as KeyValue['value']);
      }
    } else if (typeof value.value === 'string') {
      const [start, end] = [this.#offset(value.loc.start), this.#offset(value.loc.end)];
      this.strings.push({ path, value: value.value, start, end, lineEnd: inline ? null : this.#lineEnd(end) });
    }
  }

  #element(path: Path, value: KeyValue['value']): void {
    this.#lines.set(JSON.stringify(path), value.loc.start.line);
    this.#value(path, value, true);
  }

  #offset(place: Place): number {
    return (this.#lineStarts[place.line - 1] ?? 0) + place.column;
  }

  #lineEnd(offset: number): number {
    const newline = this.#body.indexOf('\n', offset);
    if (newline === -1) return this.#body.length;
    return this.#body[newline - 1] === '\r' ? newline - 1 : newline;
  }
}
