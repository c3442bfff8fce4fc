/**
 * One task: give every prepared statement one name that is the same on all servers.
 *
 * Two clients that prepare the same text with the same parameter types share one name, whatever they call it, so a
 * server has to prepare it once. Names are never used again.
 */

import { readParseText, readParseTypes } from '../wire/frontend.js';
import type { Undo } from './reply-queue.js';
import { mentionsState } from './session-state.js';

/** Statements kept that no session holds any more; the oldest is forgotten first. */
const UNUSED_MAX = 5_000;
const PREFIX = '__cutover_';

/** A prepared statement as servers know it. In a reply queue it stands for a use of it, which leaves nothing to undo. */
export class Statement implements Undo {
  readonly name: string;
  /** text and parameter types as they stand in a Parse behind the name */
  readonly body: Buffer;
  /** raised when what servers have prepared is out of date */
  generation = 0;
  /** sessions that hold it under a name */
  holders = 0;
  uses = 0;
  /** running it may leave something in the session: see session-state.ts */
  readonly mentionsState: boolean;
  #text: string | null = null;
  #types: readonly number[] | null = null;

  constructor(name: string, body: Buffer) {
    this.name = name;
    this.body = body;
    this.mentionsState = mentionsState(body, 0, body.length);
  }

  /** its SQL, read once. @throws FrameError */
  get text(): string {
    return (this.#text ??= readParseText(this.body, 0, this.body.length));
  }

  /** OIDs of its parameters' types as far as the client gave them, read once. @throws FrameError */
  get types(): readonly number[] {
    return (this.#types ??= readParseTypes(this.body));
  }

  undo(): void {
    // Using a statement changes nothing that a skipped message would have to take back.
  }
}

export class StatementCache {
  readonly #byBody = new Map<string, Statement>();
  readonly #unused = new Set<Statement>();
  #made = 0;

  get size(): number {
    return this.#byBody.size;
  }

  /** The statement of this body; the caller holds it until release(). */
  hold(body: Buffer): Statement {
    const key = body.toString('latin1');
    let statement = this.#byBody.get(key);
    if (statement === undefined) {
      this.#made += 1;
      // A copy: the body given is a view of a whole chunk of the socket.
      statement = new Statement(`${PREFIX}${this.#made.toString()}`, Buffer.from(body));
      this.#byBody.set(key, statement);
    }
    statement.holders += 1;
    this.#unused.delete(statement);
    return statement;
  }

  /** The statement of this body, which nobody holds: of many like it the one that was not asked for longest is forgotten. */
  shared(body: Buffer): Statement {
    const statement = this.hold(body);
    this.release(statement);
    return statement;
  }

  /** To be called once for each hold(). */
  release(statement: Statement): void {
    statement.holders -= 1;
    if (statement.holders > 0) return;
    this.#unused.add(statement);
    const [oldest] = this.#unused;
    if (this.#unused.size <= UNUSED_MAX || oldest === undefined) return;
    this.#unused.delete(oldest);
    this.#byBody.delete(oldest.body.toString('latin1'));
  }
}
