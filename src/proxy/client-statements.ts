/** One task: know what one client calls its prepared statements. */
import { readParseText } from '../wire/frontend.js';
import type { Undo } from './reply-queue.js';
import type { Statement, StatementCache } from './statement-cache.js';

/** More names than this are refused: each costs memory as long as the client is connected. */
export const STATEMENTS_MAX = 20_000;

export class ClientStatements {
  readonly #cache: StatementCache;
  readonly #named = new Map<string, Statement>();
  /** what named() has found last, with the bytes of its name */
  #last: { readonly name: Buffer; readonly statement: Statement } | null = null;
  /** text and types of the unnamed statement; null = there is none */
  unnamed: Buffer | null = null;
  /** names given or taken in this batch, to go back when it is sent anew */
  #changes: Undo[] = [];
  /** names given since the last keep() */
  readonly #fresh = new Set<string>();

  constructor(cache: StatementCache) {
    this.#cache = cache;
  }

  get count(): number {
    return this.#named.size;
  }

  get(name: string): Statement | undefined {
    return this.#named.get(name);
  }

  /** As get(), of a name that stands in a message. Mostly it is the one that was asked for last. */
  named(buffer: Buffer, start: number, end: number): Statement | undefined {
    const last = this.#last;
    if (last !== null && isAt(last.name, buffer, start, end)) return last.statement;
    const statement = this.#named.get(buffer.toString('utf8', start, end));
    if (statement !== undefined) this.#last = { name: Buffer.from(buffer.subarray(start, end)), statement };
    return statement;
  }

  /** Gives a name that is free to a statement. */
  prepare(name: string, body: Buffer): { statement: Statement; undo: Undo } {
    const statement = this.#cache.hold(body);
    this.#named.set(name, statement);
    this.#fresh.add(name);
    const undo = this.#change(() => {
      this.#forget(name, statement);
    });
    return { statement, undo };
  }

  /** The statement of this body, which no name of this client stands for. */
  shared(body: Buffer): Statement {
    return this.#cache.shared(body);
  }

  get hasUncertain(): boolean {
    return this.#fresh.size > 0;
  }

  /** True when nobody can tell yet whether a name is taken: an error may still take it away. */
  isUncertain(name: string): boolean {
    return this.#fresh.has(name);
  }

  /** Takes a name away. */
  close(name: string): Undo {
    const statement = this.#named.get(name);
    if (statement === undefined) return { undo: () => undefined };
    const { body } = statement;
    this.#forget(name, statement);
    return this.#change(() => {
      if (!this.#named.has(name)) this.#named.set(name, this.#cache.hold(body));
    });
  }

  /** SQL of a statement; undefined when there is none of this name. */
  textOf(name: string): string | undefined {
    const body = name === '' ? this.unnamed : this.#named.get(name)?.body;
    return body === null || body === undefined ? undefined : readParseText(body, 0, body.length);
  }

  nameOf(serverName: string): string | undefined {
    for (const [name, statement] of this.#named) if (statement.name === serverName) return name;
    return undefined;
  }

  /** What was prepared and closed so far stays. */
  keep(): void {
    if (this.#changes.length === 0) return;
    this.#changes = [];
    this.#fresh.clear();
  }

  /** Goes back to the last keep(). */
  revert(): void {
    for (const change of this.#changes.reverse()) change.undo();
    this.keep();
  }

  /** DEALLOCATE ALL, or the end of the session. */
  clear(): void {
    for (const [name, statement] of this.#named) this.#forget(name, statement);
    this.keep();
  }

  #forget(name: string, statement: Statement): void {
    if (this.#named.get(name) !== statement) return;
    this.#named.delete(name);
    this.#last = null;
    this.#cache.release(statement);
  }

  /** An undo that works once. */
  #change(goBack: () => void): Undo {
    let done = false;
    const change: Undo = {
      undo: () => {
        if (!done) goBack();
        done = true;
      },
    };
    this.#changes.push(change);
    return change;
  }
}

/** Whether the bytes from `start` to `end` are these, and no others. */
function isAt(bytes: Buffer, buffer: Buffer, start: number, end: number): boolean {
  if (bytes.length !== end - start) return false;
  for (let at = 0; at < bytes.length; at += 1) if (bytes[at] !== buffer[start + at]) return false;
  return true;
}
