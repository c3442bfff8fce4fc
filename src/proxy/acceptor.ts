/** One task: let clients in: take each new connection through encryption and login to a session, or to the reason why not. */
import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import type { Config } from '../config/config.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import * as backend from '../wire/backend.js';
import { FrameError } from '../wire/frames.js';
import { secretBytes } from '../wire/startup.js';
import { AdminSession } from './admin-session.js';
import { ClientLimit } from './client-limit.js';
import { authenticate, type Authenticated } from './client-login.js';
import { ClientEncryption } from './client-tls.js';
import type { AdminHandler } from './contract.js';
import { CredentialStore } from './credentials.js';
import { Passthrough } from './passthrough.js';
import type { ProvenCredentials } from './proven-credentials.js';
import { SessionCounters } from './session-counters.js';
import type { LoggedInClient, SessionContext } from './session-context.js';
import { ToldParameters } from './startup-settings.js';

/** What the acceptor needs of the proxy around it. */
export interface AcceptorContext extends SessionContext {
  readonly proven: ProvenCredentials;
  readonly admin: AdminHandler | undefined;
  /** @returns the id of one more client. @throws CutoverError `shutting_down` */
  admit(): number;
  begin(client: LoggedInClient): void;
  /** as a cancel request asks; nothing happens when no client has this id and secret */
  cancel(processId: number, secret: Buffer): void;
}

export class Acceptor {
  /** every connection that clients have opened */
  readonly sockets = new Set<Socket>();
  /** of these, how many log in now */
  logins = 0;
  readonly #told = new ToldParameters();
  readonly #context: AcceptorContext;
  #config: Config;
  readonly #passthrough: Passthrough;
  readonly #limit = new ClientLimit(() => this.#config.general.maxClients);
  #credentials: CredentialStore;
  #encryption: ClientEncryption | null;

  constructor(config: Config, context: AcceptorContext) {
    this.#context = context;
    this.#config = config;
    this.#passthrough = new Passthrough(context.proven);
    this.#credentials = new CredentialStore(config);
    this.#encryption = encryptionOf(config);
  }

  /** Who comes from now on is asked by this configuration. */
  apply(config: Config): void {
    // A swap changes nothing about it, and a pause is no time to read keys.
    if (config.tls.clients !== this.#config.tls.clients) this.#encryption = encryptionOf(config);
    this.#config = config;
    this.#credentials = new CredentialStore(config, this.#credentials);
  }

  /** Takes a connection that somebody has just opened. Never rejects. */
  async accept(bare: Socket): Promise<void> {
    this.#follow(bare);
    this.logins += 1;
    const door: Door = { socket: bare, handshakes: false };
    const waitedMs = this.#config.general.clientLoginTimeoutMs;
    const timer = setTimeout(() => {
      this.#refuse(door, new CutoverError('login_timeout', { waitedMs }));
    }, waitedMs);
    try {
      this.#limit.enter(door, this.sockets.size, (error) => {
        this.#refuse(door, error);
      });
      await this.#logIn(door);
    } catch (error) {
      this.#refuse(door, error);
    } finally {
      clearTimeout(timer);
      this.#limit.leave(door);
      this.logins -= 1;
    }
  }

  /** Resolves when every connection has ended that was open at the call. */
  async emptied(): Promise<void> {
    await Promise.all([...this.sockets].map((socket) => new Promise((resolve) => socket.once('close', resolve))));
  }

  #follow(socket: Socket): void {
    this.sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => this.sockets.delete(socket));
  }

  async #logIn(door: Door): Promise<void> {
    const encryption = this.#encryption;
    const client = await authenticate(door.socket, {
      config: { ...this.#config, databases: this.#context.routes.databases },
      credentials: this.#credentials,
      proven: this.#context.proven,
      passthrough: this.#passthrough,
      cancel: (processId, secret) => {
        this.#context.cancel(processId, secret);
      },
      encryption,
      encrypt: encryption === null ? null : (bare, direct) => this.#encrypt(door, encryption, bare, direct),
      checkRoute: (user, database) => void this.#context.routes.of(user, database),
      expectRoom: (database) => {
        if (database !== this.#config.admin.name) this.#limit.expectRoom();
      },
    });
    this.#limit.leave(door);
    if (client === null) door.socket.destroySoon();
    else if (client.database === this.#config.admin.name) this.#beginAdmin(door.socket, client);
    else await this.#begin(door.socket, client);
  }

  async #encrypt(door: Door, encryption: ClientEncryption, bare: Socket, direct: boolean): Promise<Socket> {
    door.handshakes = true;
    door.socket = await encryption.encrypt(bare, direct);
    door.handshakes = false;
    this.#follow(door.socket);
    this.sockets.delete(bare);
    return door.socket;
  }

  async #begin(socket: Socket, client: Authenticated): Promise<void> {
    const { user, database, settings, asked } = client;
    this.#limit.add(socket);
    const reported = await this.#reportedFor(user, database);
    if (socket.destroyed) return;
    const id = this.#context.admit();
    const secret = randomBytes(secretBytes(client.minor));
    const parameters = this.#told.for(reported, asked);
    socket.write(greeting(id, secret, parameters));
    const unread = client.reader.release();
    this.#context.begin({ id, secret, socket, user, database, settings, parameters, unread });
  }

  /** What a server of this route reports. With the gate closed, or without a primary, nobody waits for a server that may be away. */
  async #reportedFor(user: string, database: string): Promise<ReadonlyMap<string, string> | null> {
    const { routes } = this.#context;
    const { pool } = routes.of(user, database);
    if (pool.parameters !== null) return pool.parameters;
    if (!this.#context.gate(database).closed && pool.options.access !== 'nobody') return pool.reported();
    return routes.pools.find((other) => other.parameters !== null)?.parameters ?? null;
  }

  #beginAdmin(socket: Socket, client: Authenticated): void {
    const { journal } = this.#context;
    const handler = this.#context.admin ?? {
      execute: () => Promise.reject(new CutoverError('feature_unsupported', { feature: 'the admin database' })),
    };
    const { user, database } = client;
    const counters = new SessionCounters(socket);
    const guest = { id: this.#context.admit(), user, database, counters };
    journal.connected(guest);
    socket.once('close', () => {
      const durationMs = Date.now() - counters.connectedAt.getTime();
      const { bytesRead: bytesReceived, bytesWritten: bytesSent } = socket;
      journal.disconnected(guest, { durationMs, bytesReceived, bytesSent });
    });
    const secret = randomBytes(secretBytes(client.minor));
    socket.write(greeting(guest.id, secret, this.#told.for(null, client.asked)));
    new AdminSession(socket, client.reader.release(), handler, this.#context, guest);
  }

  #refuse({ socket, handshakes }: Door, error: unknown): void {
    // What is said inside of a handshake would only break it.
    if (handshakes) socket.destroy();
    if (socket.destroyed) return;
    let known: CutoverError;
    if (error instanceof CutoverError) known = error;
    else if (error instanceof FrameError)
      known = new CutoverError('protocol_violation', { problem: error.message }, { cause: error });
    else known = new CutoverError('internal', { problem: messageOf(error) }, { cause: error });
    const named = (name: 'user' | 'database'): object => {
      const value = known.details[name];
      return typeof value === 'string' ? { [name]: value } : {};
    };
    const guest = { ...named('user'), ...named('database'), counters: new SessionCounters(socket) };
    socket.end(this.#context.journal.answer(known, 'FATAL', guest));
    socket.destroySoon();
  }
}

/** A connection that nobody has logged in on yet. */
interface Door {
  /** another than at first once it is encrypted */
  socket: Socket;
  handshakes: boolean;
}

function encryptionOf({ tls, general }: Config): ClientEncryption | null {
  return tls.clients === null ? null : new ClientEncryption(tls.clients, general.clientLoginTimeoutMs);
}

/** Everything a client is told between AuthenticationOk and its first statement, in one piece. */
function greeting(id: number, secret: Buffer, parameters: ReadonlyMap<string, string>): Buffer {
  const reports = [...parameters].map(([name, value]) => backend.parameterStatus(name, value));
  return Buffer.concat([...reports, backend.backendKeyData(id, secret), backend.READY_IDLE]);
}
