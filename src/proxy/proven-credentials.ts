/**
 * One task: remember what clients have proven and no file has, and add it to a configuration: passwords of pass-through users, and what a
 * client of a `password_hash` has shown, which its server wants to see too.
 *
 * In memory only. Passwords belong to a user and the name of a database, so they stay when names change places; what belongs to a
 * `password_hash` is found by it.
 */
import type { Socket } from 'node:net';
import type { Config, ScramKeys, UserEntry } from '../config/config.js';
import { CutoverError } from '../errors/errors.js';

/** Each may have a pool of its own. */
export const USERS_MAX = 1_000;

/** What a client has shown that it knows. */
export type Secret = { readonly password: string } | { readonly keys: ScramKeys };

interface Remembered {
  readonly user: string;
  readonly database: string;
  readonly password: string;
  /** clients that are there; none of them may lose its pool */
  readonly sockets: Set<Socket>;
  /** since when there are none */
  unusedSinceMs: number;
}

export class ProvenCredentials {
  readonly #onChange: () => void;
  readonly #users = new Map<string, Remembered>();
  /** by `password_hash`, which a file has: as many as there are */
  readonly #secrets = new Map<string, Secret>();
  /** `passthrough_auth` lets somebody in */
  #passthrough = false;
  /** databases that are made ready to be used as another one is */
  readonly #alike = new Map<string, string>();

  /** @param onChange what `addedTo` gives is another now */
  constructor(onChange: () => void) {
    this.#onChange = onChange;
  }

  passwordOf(user: string, database: string): string | null {
    return this.#users.get(keyOf(user, database))?.password ?? null;
  }

  /** May be called again, with another password too; with passthrough_auth disabled it does nothing. @throws CutoverError `passthrough_full` */
  remember(user: string, database: string, password: string): void {
    const key = keyOf(user, database);
    const before = this.#users.get(key);
    if (before?.password === password || !this.#passthrough) return;
    if (before === undefined && this.#users.size >= USERS_MAX && !this.#forgetUnused(Infinity))
      throw new CutoverError('passthrough_full', { user, limit: USERS_MAX });
    const sockets = before?.sockets ?? new Set();
    this.#users.set(key, { user, database, password, sockets, unusedSinceMs: performance.now() });
    this.#onChange();
  }

  /** Keeps the user remembered until the socket is closed, whatever his password is by then. */
  hold(user: string, database: string, socket: Socket): void {
    const key = keyOf(user, database);
    if (socket.destroyed || this.#users.get(key)?.sockets.add(socket) === undefined) return;
    socket.once('close', () => {
      const one = this.#users.get(key);
      if (one?.sockets.delete(socket) === true) one.unusedSinceMs = performance.now();
    });
  }

  /** What a client has shown of a `password_hash`. May be called again. */
  learn(hash: string, secret: Secret): void {
    if (this.#secrets.has(hash)) return;
    this.#secrets.set(hash, secret);
    this.#onChange();
  }

  /** Users of `like` are about to use `database`: their pools there may be filled ahead. Nobody may log in by it. */
  makeAlike(database: string, like: string): void {
    if (this.#alike.get(database) === like) return;
    this.#alike.set(database, like);
    if (this.#users.size > 0) this.#onChange();
  }

  /** To be called about once a second: forgets users that have been away for as long as an idle server connection is kept. */
  sweep(idleTimeoutMs: number): void {
    if (this.#forgetUnused(performance.now() - idleTimeoutMs)) this.#onChange();
  }

  /** To be called with each configuration before it is added to: forgets what it has no use for. */
  apply({ general, users }: Config): void {
    const hashes = new Set(users.map((row) => row.passwordHash));
    for (const hash of this.#secrets.keys()) if (!hashes.has(hash)) this.#secrets.delete(hash);
    this.#passthrough = general.passthroughAuth !== 'disabled';
    if (!this.#passthrough) this.#users.clear();
  }

  /** The configuration with what was proven in it. Only to route by: it is not to be compared, shown or saved. */
  addedTo(config: Config): Config {
    const users = config.users.map((row) => this.#completed(row));
    const listed = new Set(users.map((row) => keyOf(row.name, row.database)));
    const others = this.#leading().filter((row) => !listed.has(keyOf(row.name, row.database)));
    return { ...config, users: [...users, ...others] };
  }

  #completed(row: UserEntry): UserEntry {
    if (isProvenByServer(row)) {
      const password = this.#passwordFor(row.name, row.database);
      return password === null ? row : { ...row, passwords: [password] };
    }
    const secret = row.passwordHash === undefined ? undefined : this.#secrets.get(row.passwordHash);
    if (secret === undefined || row.passwords.length > 0 || row.serverPassword !== undefined) return row;
    return 'keys' in secret ? { ...row, serverKeys: secret.keys } : { ...row, serverPassword: secret.password };
  }

  #passwordFor(user: string, database: string): string | null {
    const like = this.#alike.get(database);
    return this.passwordOf(user, database) ?? (like === undefined ? null : this.passwordOf(user, like));
  }

  /** Rows that no file has. */
  #leading(): UserEntry[] {
    const rows = new Map<string, UserEntry>();
    const add = (name: string, database: string, password: string): void =>
      void rows.set(keyOf(name, database), { name, database, passwords: [password], schemaAdmin: false });
    for (const [database, like] of this.#alike)
      for (const one of this.#users.values()) if (one.database === like) add(one.user, database, one.password);
    for (const { user, database, password } of this.#users.values()) add(user, database, password);
    return [...rows.values()];
  }

  /** @returns whether somebody was forgotten */
  #forgetUnused(beforeMs: number): boolean {
    const gone = [...this.#users].filter(([, one]) => one.sockets.size === 0 && one.unusedSinceMs < beforeMs);
    for (const [key] of gone) this.#users.delete(key);
    return gone.length > 0;
  }
}

/** Nothing in the files could prove that a client is this user. */
export function isProvenByServer({ passwords, passwordHash, identity }: UserEntry): boolean {
  return passwords.length === 0 && passwordHash === undefined && identity === undefined;
}

function keyOf(user: string, database: string): string {
  return JSON.stringify([user, database]);
}
