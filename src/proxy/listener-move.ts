/**
 * One task: have a session that listens hear another server, and lose no notification on the way.
 *
 * First the other server listens, then the one before stops: what was notified there until then is delivered before it says so, since
 * a server tells its notifications before it is ready again (PostgreSQL documentation, NOTIFY).
 *
 * If the process dies here: the clients are gone with it, and the servers end sessions whose client is gone.
 */
import type { CutoverError } from '../errors/errors.js';
import { Errand } from './errand.js';
import type { Borrower, Pool } from './pool.js';
import type { ServerConnection } from './server-connection.js';
import { listenSql } from './session-state.js';

/** Takes a server of `pool` and has it listen. @returns null where none could be had */
export function listenOn(pool: Pool, channels: readonly string[]): Promise<ServerConnection | null> {
  return new Promise((resolve) => {
    const taking = new Taking(pool, channels, resolve);
    const server = pool.take(taking);
    if (server !== null) taking.granted(server);
  });
}

/** Gives a server back that has listened for a client, once it has told all it has heard. Never rejects. */
export function stopListening(server: ServerConnection, pool: Pool, deliver: (bytes: Buffer) => void): Promise<void> {
  return new Promise((resolve) => {
    if (!server.usable) {
      resolve();
      return;
    }
    server.owner = new Telling(deliver, () => {
      if (server.usable) pool.giveBack(server, false);
      resolve();
    });
    server.setup('UNLISTEN *', pool.options.rollbackTimeoutMs);
  });
}

class Taking extends Errand implements Borrower {
  readonly #pool: Pool;
  readonly #channels: readonly string[];
  readonly #done: (server: ServerConnection | null) => void;
  #server: ServerConnection | null = null;

  constructor(pool: Pool, channels: readonly string[], done: (server: ServerConnection | null) => void) {
    super((failure) => {
      this.#answered(failure);
    });
    this.#pool = pool;
    this.#channels = channels;
    this.#done = done;
  }

  granted(server: ServerConnection): void {
    this.#server = server;
    server.owner = this;
    server.setup(listenSql(this.#channels), this.#pool.options.rollbackTimeoutMs);
  }

  denied(_error: CutoverError): void {
    this.#done(null);
  }

  sentAway(): void {
    this.#done(null);
  }

  #answered(failure: Buffer | null): void {
    const server = this.#server;
    this.#server = null;
    if (failure !== null && server?.usable === true) this.#pool.giveBack(server, false);
    this.#done(failure === null ? server : null);
  }
}

class Telling extends Errand {
  readonly #deliver: (bytes: Buffer) => void;

  constructor(deliver: (bytes: Buffer) => void, done: () => void) {
    super(done);
    this.#deliver = deliver;
  }

  override deliver(bytes: Buffer): void {
    this.#deliver(bytes);
  }
}
