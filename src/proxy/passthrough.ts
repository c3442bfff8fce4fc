/**
 * One task: find out whether a password that no file has is right, by logging in to the server with it (`passthrough_auth`).
 *
 * The client's own name and password are what the server is asked with, whatever the pools of that database log in as. A server that asks for
 * no password has not checked one. Names and passwords that are remembered are not asked about again.
 */
import type { Config, DatabaseEntry, PassthroughAuth } from '../config/config.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import { addressOf, endpointFor, type Endpoint } from '../postgres/endpoint.js';
import { TERMINATE } from '../wire/frontend.js';
import { same } from './credentials.js';
import { isProvenByServer, type ProvenCredentials } from './proven-credentials.js';
import { logIn, ServerRefusal } from './server-login.js';

/** Somebody who guesses passwords must not take all connections of a server. */
const ASKED_AT_ONCE_MAX = 8;
const WAITING_MAX = 1_000;
/** invalid_authorization_specification and invalid_password */
const REFUSED = new Set(['28000', '28P01']);

const PLAIN: ReadonlySet<PassthroughAuth> = new Set(['enabled_plain', 'enabled_plain_allow_change']);
const CHANGE: ReadonlySet<PassthroughAuth> = new Set(['enabled_allow_change', 'enabled_plain_allow_change']);

/**
 * True when clients of this connection are asked for their passwords in clear, all of them: a question that depended on the user would tell
 * whose name is in users.toml.
 */
export function asksInClear(config: Config, database: string, encrypted: boolean): boolean {
  const { passthroughAuth } = config.general;
  if (passthroughAuth === 'disabled' || database === config.admin.name) return false;
  return encrypted || PLAIN.has(passthroughAuth);
}

export class Passthrough {
  readonly #proven: ProvenCredentials;
  /** under way: who brings the same name and password meanwhile waits for the same answer */
  readonly #running = new Map<string, Promise<boolean>>();
  readonly #waiting: (() => void)[] = [];
  #asking = 0;

  constructor(proven: ProvenCredentials) {
    this.#proven = proven;
  }

  /** Whether a server has to say if the user's password is right. */
  concerns(config: Config, user: string, database: string): boolean {
    const row = config.users.find((one) => one.name === user && one.database === database);
    return row === undefined || isProvenByServer(row);
  }

  /**
   * True when the password is right; it is remembered then.
   *
   * @throws CutoverError `server_unreachable` | `password_unchecked` | `passthrough_full`
   */
  async accepted(config: Config, user: string, database: string, password: string): Promise<boolean> {
    const known = this.#proven.passwordOf(user, database);
    if (known !== null && same(known, password)) return true;
    if (known !== null && !CHANGE.has(config.general.passthroughAuth)) return false;
    const entry = config.databases.find((row) => row.name === database && row.shard === 0 && row.role !== 'replica');
    // PostgreSQL accepts no empty password either.
    if (entry === undefined || password === '') return false;
    const question = JSON.stringify([user, database, password]);
    const running = this.#running.get(question) ?? this.#ask(config, entry, user, password);
    this.#running.set(question, running);
    try {
      if (!(await running)) return false;
    } finally {
      this.#running.delete(question);
    }
    this.#proven.remember(user, database, password);
    return true;
  }

  async #ask(config: Config, entry: DatabaseEntry, user: string, password: string): Promise<boolean> {
    if (this.#asking < ASKED_AT_ONCE_MAX) this.#asking += 1;
    else if (this.#waiting.length < WAITING_MAX) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else throw new CutoverError('passthrough_full', { user, limit: WAITING_MAX });
    try {
      const row = { name: user, database: entry.name, passwords: [], schemaAdmin: false };
      const endpoint = { ...endpointFor(config, entry, row), user, password };
      return await serverAccepts(endpoint, entry.name, config.general.connectTimeoutMs);
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#asking -= 1;
      else next();
    }
  }
}

async function serverAccepts(endpoint: Endpoint, database: string, timeoutMs: number): Promise<boolean> {
  try {
    const { socket, passwordChecked } = await logIn(endpoint, timeoutMs, {});
    socket.end(TERMINATE);
    socket.destroySoon();
    if (passwordChecked) return true;
  } catch (error) {
    const refusal = error instanceof Error ? error.cause : null;
    if (refusal instanceof ServerRefusal && REFUSED.has(refusal.sqlstate)) return false;
    const problem = messageOf(error);
    throw new CutoverError('server_unreachable', { database, address: addressOf(endpoint), problem }, { cause: error });
  }
  throw new CutoverError('password_unchecked', { database, user: endpoint.user });
}
