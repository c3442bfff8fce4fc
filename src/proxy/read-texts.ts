/** One task: keep, by text, whether a replica may answer it and which role its comment asks for. */
import { readKind, type ReadKind } from '../sharding/plain-read.js';
import { TextCache } from '../sharding/router-cache.js';
import { loadStatementParser, type StatementParser } from '../sharding/statement-parser.js';

export type WantedRole = 'primary' | 'replica';

export interface ReadText {
  readonly kind: ReadKind;
  /** of a comment at the text's start or end; null: it asks for none */
  readonly role: WantedRole | null;
}

const CACHE_BYTES = 16 * 1024 * 1024;
/** Nothing here depends on a search path. */
const ANY_PATH: readonly string[] = [];
const UNKNOWN: ReadText = { kind: 'other', role: null };
const COMMENT = String.raw`\/\*\s*pgdog_role\s*:\s*(primary|replica)\s*\*\/`;
const AT_START = new RegExp(String.raw`^\s*${COMMENT}`, 'i');
/** Long texts are searched at their end only; a comment is short. */
const AT_END = new RegExp(String.raw`${COMMENT}[\s;]*$`, 'i');
const END_CHARACTERS = 512;

export class ReadTexts {
  readonly #cache = new TextCache<ReadText>(CACHE_BYTES);
  #parser: StatementParser | null = null;

  /** Loads the parser, which takes a tenth of a second; until then nothing is taken for a read. May be called again. Never rejects. */
  async load(): Promise<void> {
    this.#parser ??= await loadStatementParser().catch(() => null);
  }

  of(text: string): ReadText {
    if (this.#parser === null) return UNKNOWN;
    const known = this.#cache.get(text, ANY_PATH);
    if (known !== null) return known;
    const found: ReadText = { kind: readKind(this.#parser, text), role: commentRole(text) };
    this.#cache.keep(text, ANY_PATH, found);
    return found;
  }
}

function commentRole(text: string): WantedRole | null {
  if (!text.includes('pgdog_role')) return null;
  const [, role] = AT_START.exec(text) ?? AT_END.exec(text.slice(-END_CHARACTERS)) ?? [];
  return role === undefined ? null : (role.toLowerCase() as WantedRole);
}
