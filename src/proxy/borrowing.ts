/**
 * One task: get one session a server for its next transaction, and give it back: gate, route, pool, settings.
 *
 * Steps, in order: `none` (no server, or one that is kept or in use), `gate` (waits until it is open), `pool` (waits for a
 * connection), `setup` (the server gets the settings of the session), and `none` again. A transaction that has done nothing yet can
 * be begun anew on another shard: `closing` (it ends where it is), then `gate`, `pool`, and `opening` (it begins there). Behind a
 * transaction that may have left something in the server's session it is asked what: `asking`. Who comes while its server is exchanged for
 * another one that listens as well waits for that: `exchange`.
 */
import { CutoverError } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';
import { errorField } from '../wire/backend.js';
import type { Gate } from './gate.js';
import { GateWait } from './gate-wait.js';
import type { Borrower, Pool, SharedServer } from './pool.js';
import { isReplica } from './replica-set.js';
import { sendCancel } from './server-cancel.js';
import type { ServerConnection, ServerOwner } from './server-connection.js';
import type { Route } from './routes.js';
import type { SessionContext } from './session-context.js';
import { stateLost, STATE_SQL, type SessionState } from './session-state.js';
import type { Lent } from './shard-transaction.js';
import { cannotFail, differenceSql } from './settings.js';
import type { TrackedSettings } from './tracked-settings.js';

/** Servers tried when one is lost before anything of the client's was sent to it. */
const SETUPS_MAX = 3;

export interface BorrowingListener extends ServerOwner {
  /** The server is the session's and has its settings. */
  obtained(server: ServerConnection): void;
  /** No server for this batch; the session goes on. */
  notObtained(error: CutoverError): void;
  /** The session cannot go on. */
  failed(error: CutoverError): void;
  /** By another configuration the batch at hand may belong elsewhere: nothing was borrowed, and begin() is called again. */
  placeAnew(): void;
  /** The batch at hand, which waits for a server, goes by one that several share: the one that came, or that of others; false: it may not. */
  shares(by: ServerConnection | SharedServer): boolean;
  /** The same of an open transaction that has only begun: on which shard it begins now; null: nobody can tell yet. */
  shardAnew(): number | null;
}

export type Step = 'none' | 'gate' | 'pool' | 'setup' | 'closing' | 'opening' | 'asking' | 'exchange';

export class Borrowing implements Borrower {
  /** held now; in session mode also between transactions */
  server: ServerConnection | null = null;
  pool: Pool | null = null;
  step: Step = 'none';
  /** what the client has in the server's session, so that it keeps the server in every mode; null: nothing */
  state: SessionState | null = null;
  /** replicas in a row that gave no connection for the batch at hand */
  refusals = 0;
  readonly #user: string;
  readonly #database: string;
  readonly #context: SessionContext;
  readonly #gate: Gate;
  readonly #wait: GateWait;
  readonly #settings: TrackedSettings;
  readonly #listener: BorrowingListener;
  #route: Route | null = null;
  #routeVersion = -1;
  #setups = 0;
  #exchanging = false;
  #shard = 0;
  /** routes to the shards where the session was, of one configuration */
  readonly #known = new Map<number, Route>();
  #knownVersion = -1;
  /** for a connection of a full pool */
  #waitsSinceMs: number | null = null;
  /** the configuration by which the shard was found */
  #placedVersion = -1;
  /** what begins the client's transaction on the server that comes; null: none is open */
  #opening: string | null = null;
  /** answers to statements of ours that must come before the transaction is open */
  #owed = 0;

  constructor(
    client: { readonly user: string; readonly database: string },
    context: SessionContext,
    settings: TrackedSettings,
    listener: BorrowingListener,
  ) {
    this.#user = client.user;
    this.#database = client.database;
    this.#context = context;
    this.#gate = context.gate(client.database);
    this.#settings = settings;
    this.#listener = listener;
    this.#wait = new GateWait(this.#gate, client.database, context.gateWaitMs, this.#passed, (error) => {
      this.denied(error);
    });
  }

  /** Server sessions are kept between transactions. */
  get keeps(): boolean {
    return this.state !== null || (this.#route?.mode === 'session' && this.pool?.retired === false);
  }

  /** where it is, or was last */
  get shard(): number {
    return this.#shard;
  }

  /** What is sent now goes to a replica: the next batch may belong elsewhere. */
  get onReplica(): boolean {
    return isReplica(this.#shard);
  }

  /** The client is in a transaction that no server has: it must not go on as if there were none. */
  get moving(): boolean {
    return this.#opening !== null;
  }

  /** A server works for this session, and what the client sent has not gone to it yet. */
  get preparing(): boolean {
    return this.step === 'setup' || this.step === 'closing' || this.step === 'opening';
  }

  /**
   * Begins on a shard; obtained() may be called on this very call.
   *
   * @param again the batch has waited before, and joined others in vain
   */
  begin(shard: number, again: boolean): void {
    if (shard !== this.#shard) this.#routeVersion = -1;
    this.#placeOn(shard);
    this.#enter(again);
  }

  /** Begins the open transaction, which has done nothing yet, on another shard: by `opening`, in SQL. */
  move(shard: number, opening: string): void {
    const { server } = this;
    invariant(server !== null, 'a transaction is open');
    this.#routeVersion = -1;
    this.#placeOn(shard);
    this.#opening = opening;
    this.step = 'closing';
    server.setup('ROLLBACK', this.#withinMs);
  }

  /** Lets go of the server without giving it back: it is kept with others of the transaction. */
  lend(): Lent {
    const { server, pool } = this;
    invariant(server !== null && pool !== null, 'a transaction is open');
    this.server = null;
    return { shard: this.#shard, server, pool, version: this.#placedVersion };
  }

  /** Has the server of a transaction again, perhaps on another shard. */
  takeBack({ shard, server, pool, version }: Lent): void {
    if (shard !== this.#shard) this.#routeVersion = -1;
    this.#shard = shard;
    this.#placedVersion = version;
    server.owner = this.#listener;
    this.server = server;
    this.pool = pool;
  }

  /** for statements of the proxy's own */
  get #withinMs(): number {
    return this.#context.config.general.rollbackTimeoutMs;
  }

  #placeOn(shard: number): void {
    this.#shard = shard;
    this.#placedVersion = this.#context.routes.version;
  }

  #enter(again = false): void {
    // What it waits at the gate is not the pool's.
    if (!again || this.#gate.closed) this.#waitsSinceMs = null;
    this.step = 'gate';
    const bound = (this.state?.bound.length ?? 0) > 0;
    if (bound && this.#context.waitsForBound(this.#database)) this.#passed();
    else this.#wait.begin();
  }

  /** Takes the wait back. */
  leave(): void {
    this.#wait.leave();
    if (this.step === 'pool') this.pool?.forget(this);
    this.step = 'none';
    this.#opening = null;
  }

  /** Asks the server what its session has of the client; it says setupDone(). */
  ask(): void {
    this.step = 'asking';
    this.server?.ask(STATE_SQL, this.#withinMs);
  }

  /** Until exchange() the session cannot go on. */
  beginExchange(): void {
    this.#exchanging = true;
  }

  /** Has another server, which listens to the same channels, in the place of the one it keeps. @returns that one */
  exchange(server: ServerConnection, pool: Pool): { readonly server: ServerConnection; readonly pool: Pool } {
    const { server: before, pool: its } = this;
    invariant(before !== null && its !== null && this.state !== null, 'a server is kept');
    this.server = server;
    this.pool = pool;
    server.owner = this.#listener;
    this.#exchanging = false;
    if (this.step === 'exchange') this.#borrow();
    return { server: before, pool: its };
  }

  /**
   * Gives the server back; what it left behind is cleaned away first where sessions are not shared.
   *
   * @param suspected nobody has asked the server what its session has
   */
  giveBack(suspected = false): void {
    const { server } = this;
    const clean = !suspected && this.state === null && this.#route?.mode !== 'session';
    this.server = null;
    this.state = null;
    if (server !== null) this.pool?.giveBack(server, clean);
    this.#gate.released();
  }

  /**
   * Asks the server to stop what it runs for this session; nothing happens when it runs nothing. What still waits for a server has
   * been sent to none, and is answered as one would answer it.
   */
  cancel(): void {
    const { server, pool } = this;
    if ((this.step === 'gate' || this.step === 'pool') && !this.moving) {
      this.leave();
      this.#listener.notObtained(new CutoverError('statement_cancelled'));
      return;
    }
    if (server === null || pool === null || server.replies.empty) return;
    server.cancelsInFlight += 1;
    void sendCancel(server).then(() => {
      pool.cancelArrived(server);
    });
  }

  /** The server has answered the setup statement. */
  setupDone(failure: Buffer | null): void {
    const { server } = this;
    if (server === null) return;
    if (this.step === 'closing') {
      this.giveBack();
      this.#enter();
      return;
    }
    this.#owed = Math.max(0, this.#owed - 1);
    if (failure !== null) {
      server.settings = null;
      const problem = errorField(failure, 0, failure.length, 'M') ?? 'unknown';
      this.#listener.failed(new CutoverError('settings_refused', { problem }));
      return;
    }
    this.#tellNews(server);
    if (this.step === 'setup' || (this.step === 'opening' && this.#owed === 0)) this.#obtained(server);
  }

  /** The server is gone. @returns true when another one is on its way, because nothing of the client's was lost */
  lost(): boolean {
    this.server = null;
    const kept = this.state !== null;
    this.state = null;
    if (!this.preparing || kept || this.#setups >= SETUPS_MAX) return false;
    this.#setups += 1;
    this.#enter();
    return true;
  }

  granted(server: ServerConnection): void {
    if (!this.#mayUse) {
      // Back in a turn of its own: the next in line may find the gate closed just the same.
      const { pool } = this;
      queueMicrotask(() => pool?.giveBack(server, true));
      if (this.step === 'pool') this.#enter();
      return;
    }
    if (!this.#shares(server)) this.#attach(server);
    // The session has ended over it.
    else if (server.owner === null) this.pool?.giveBack(server, true);
  }

  joins(shared: SharedServer): boolean {
    return this.#mayUse && this.#shares(shared);
  }

  #shares(by: ServerConnection | SharedServer): boolean {
    if (this.#opening !== null) return false;
    this.step = 'none';
    if (this.#listener.shares(by)) return true;
    this.step = 'pool';
    return false;
  }

  /** What it waits for a connection for may still go there. */
  get #mayUse(): boolean {
    return this.step === 'pool' && !this.#gate.closed && this.#routeVersion === this.#context.routes.version;
  }

  denied(error: CutoverError): void {
    this.step = 'none';
    if (!this.onReplica) {
      this.#listener.notObtained(error);
      return;
    }
    // Another server can answer the same.
    this.refusals += 1;
    this.#context.routes.replicasOf(this.#user, this.#database)?.failed(this.pool, error);
    if (this.#opening === null) this.#listener.placeAnew();
    else {
      this.#routeVersion = -1;
      this.#placeOn(0);
      this.#enter();
    }
  }

  sentAway(): void {
    this.#enter();
  }

  readonly #passed = (): void => {
    if (this.#placedVersion === this.#context.routes.version) {
      this.#borrow();
      return;
    }
    // The names have changed places while the session waited, and with them the shards.
    if (this.#opening === null) {
      this.step = 'none';
      this.#listener.placeAnew();
      return;
    }
    const shard = this.#listener.shardAnew();
    if (shard === null) this.#listener.failed(new CutoverError('server_lost', { database: this.#database }));
    else {
      this.#placeOn(shard);
      this.#borrow();
    }
  };

  #borrow(): void {
    if (this.#exchanging) {
      this.step = 'exchange';
      return;
    }
    let route: Route;
    try {
      route = this.#currentRoute();
    } catch (error) {
      if (!(error instanceof CutoverError)) throw error;
      this.step = 'none';
      this.#listener.failed(error);
      return;
    }
    const { pool } = route;
    if (this.server !== null) {
      const same = this.pool === pool;
      if (same && (this.state !== null || !pool.isOutdated(this.server))) {
        this.#prepare(this.server);
        return;
      }
      if (this.state !== null) {
        this.step = 'none';
        this.#listener.failed(stateLost(this.#database, this.state));
        return;
      }
      this.giveBack();
    }
    this.#route = route;
    this.pool = pool;
    this.step = 'pool';
    this.#waitsSinceMs ??= performance.now();
    const server = pool.take(this, this.#waitsSinceMs);
    if (server !== null) this.#attach(server);
  }

  #currentRoute(): Route {
    const { routes } = this.#context;
    if (this.#route !== null && this.#routeVersion === routes.version) return this.#route;
    if (this.#knownVersion !== routes.version) this.#known.clear();
    let route = this.#known.get(this.#shard);
    if (route === undefined) {
      route = routes.of(this.#user, this.#database, this.#shard);
      this.#known.set(this.#shard, route);
    }
    this.#knownVersion = routes.version;
    this.#routeVersion = routes.version;
    return route;
  }

  #attach(server: ServerConnection): void {
    server.owner = this.#listener;
    // An empty map that is cleared is allocated anew.
    if (server.changedParameters.size > 0) server.changedParameters.clear();
    this.server = server;
    this.#prepare(server);
  }

  /** Brings the server's settings to those of the session. */
  #prepare(server: ServerConnection): void {
    const wanted = this.#settings.current;
    const opening = this.#opening;
    const different = server.settings?.key !== wanted.key;
    const waits = different && !cannotFail(server.settings, wanted);
    if (different) server.setup(differenceSql(server.settings, wanted), this.#withinMs);
    else this.#tellNews(server);
    server.settings = wanted;
    if (opening !== null) {
      server.setup(opening, this.#withinMs);
      this.#owed = different ? 2 : 1;
      this.step = 'opening';
    } else if (waits) this.step = 'setup';
    else this.#obtained(server);
  }

  #obtained(server: ServerConnection): void {
    this.step = 'none';
    this.#opening = null;
    this.#setups = 0;
    this.refusals = 0;
    this.#listener.obtained(server);
  }

  #tellNews(server: ServerConnection): void {
    for (const news of this.#settings.newsFrom(server)) this.#listener.deliver(news);
  }
}
