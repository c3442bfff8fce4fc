/**
 * One task: be a node, the proxy of this process as the engine steers it.
 *
 * A node holds clients for an epoch until it is told the outcome, or until the lease of the first receipt runs out: then it
 * asks the record and resolves the epoch itself. It sets which side serves, it never exchanges sides, and it never acts
 * on an epoch that it knows resolved (docs/protocol.md, section 4).
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Config } from '../config/config.js';
import { fingerprint } from '../config/fingerprint.js';
import { commitSwap, discardPrepared } from '../config/save.js';
import { swapNames } from '../config/swap.js';
import { sameSide, sideKey, type Side } from '../cutover/side.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import { Connections } from '../postgres/connections.js';
import type { Decision } from '../postgres/record.js';
import type { Proxy } from '../proxy/contract.js';
import { Directory } from './directory.js';
import { Distrust } from './distrust.js';
import type { FleetNode, Member, NodeEpochs, NodeState, PauseAnswer, PauseRequest, SwapRequest } from './node.js';
import { unheardOf, type DatabaseState, type Hold } from './node-state.js';
import { PairRecord } from './pair-record.js';
import { resolveEpoch, type Serving } from './resolution.js';
import { SoleService } from './sole-service.js';
import { SwappedFiles } from './swapped-files.js';

export interface NodeLog {
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
}

/** Where this process is one of several workers that share a port and the configuration files. */
export interface Siblings {
  /** all of them, this one included */
  members(): readonly Member[];
  /** whether this one writes the files of them all */
  readonly savesFiles: boolean;
}

const RESOLVE_RETRY_MS = 250;
const WARM_DEADLINE_MS = 5_000;
const CANCEL_GRACE_MS = 250;

export class LocalNode implements FleetNode {
  readonly name: string;
  readonly directory: Directory;
  readonly connections = new Connections({ applicationName: 'cutover node', queryTimeoutMs: 5_000 });
  readonly distrust: Distrust;
  readonly service = new SoleService();
  readonly #proxy: Proxy;
  readonly #log: NodeLog;
  readonly #states = new Map<string, DatabaseState>();
  readonly #siblings: Siblings | null;
  readonly #records: PairRecord;
  readonly #files: SwappedFiles;
  #watch: NodeJS.Timeout | null = null;
  /** a migration has left a record somewhere: it is read again every lease */
  #recordSeen = false;
  #closed = false;

  constructor(name: string, proxy: Proxy, log: NodeLog, siblings?: Siblings) {
    this.name = name;
    this.#siblings = siblings ?? null;
    this.#proxy = proxy;
    this.#log = log;
    this.directory = new Directory(() => proxy.config);
    this.distrust = new Distrust(proxy, log);
    this.#records = new PairRecord(this.directory, this.connections, log);
    this.#files = new SwappedFiles(() => proxy.config, this.directory, log);
  }

  get #leaseMs(): number {
    return this.#proxy.config.cutover.leaseMs;
  }

  #state(database: string): DatabaseState {
    let state = this.#states.get(database);
    if (!state) {
      state = unheardOf();
      this.#states.set(database, state);
    }
    return state;
  }

  members(): Promise<readonly Member[]> {
    const alone: readonly Member[] = [{ name: this.name, port: this.#proxy.address.port }];
    return Promise.resolve(this.#siblings?.members() ?? alone);
  }

  /** Of each database of which this node has heard; unlike {@link states} it waits for nothing. */
  get epochs(): ReadonlyMap<string, NodeEpochs> {
    return this.#states;
  }

  async state(database: string): Promise<NodeState> {
    this.service.expect(this.name);
    const state = this.#state(database);
    await state.saving;
    return {
      node: this.name,
      database,
      epochSeen: state.epochSeen,
      epochResolved: state.epochResolved,
      serving: state.serving,
      gateReasons: this.#proxy.gate(database).reasons,
      configFingerprint: fingerprint(this.#proxy.config),
      filesServe: this.#files.serve(database),
    };
  }

  states(): Promise<readonly NodeState[]> {
    return Promise.all(this.directory.names.map((name) => this.state(name)));
  }

  async prepare(request: SwapRequest): Promise<void> {
    this.#keepWatching();
    const name = await this.directory.nameOf(request.serving);
    await this.#proxy.warm(name, request.database, WARM_DEADLINE_MS);
    const state = this.#state(request.database);
    if (!this.#saves(request)) return;
    await state.saving;
    if (state.prepared) await discardPrepared(state.prepared);
    // For the side that serves already no files are needed: then what was prepared for another one is only taken away.
    state.prepared = name === request.database ? null : await this.#files.tryPrepare(request);
  }

  #saves(request: SwapRequest): boolean {
    return request.saveConfig && (this.#siblings?.savesFiles ?? true);
  }

  async pause(request: PauseRequest): Promise<PauseAnswer> {
    this.service.expect(this.name);
    const state = this.#state(request.database);
    if (request.epoch <= state.epochResolved || request.epoch < state.epochSeen)
      throw new CutoverError('epoch_closed', {
        epoch: request.epoch,
        state: `this node stands at epoch ${Math.max(state.epochResolved, state.epochSeen).toString()}`,
      });
    this.#keepWatching();
    state.epochSeen = request.epoch;
    state.peer = request.peer;
    const gate = this.#proxy.gate(request.database);
    gate.close('cutover');
    if (state.hold?.epoch.epoch !== request.epoch) this.#hold(state, request);
    let drain = await gate.drained(request.drainMs);
    if (!drain.drained && request.drainAction === 'cancel') {
      this.#proxy.cancelRunning(request.database);
      drain = await gate.drained(CANCEL_GRACE_MS);
    }
    return {
      drained: drain.drained,
      waitedMs: drain.waitedMs,
      clientsHeld: gate.waitingCount,
      holders: drain.holders.map(
        (h) =>
          `client ${h.clientId.toString()} (${h.user}, "${h.application}", server pid ${h.serverPid.toString()}, ${Math.round(h.transactionMs).toString()} ms)`,
      ),
    };
  }

  /** The deadline is fixed by the first receipt on the monotonic clock; only renew() moves it. */
  #hold(state: DatabaseState, request: PauseRequest): void {
    if (state.hold) clearTimeout(state.hold.timer);
    const { database, epoch, source, destination } = request;
    const hold: Hold = {
      epoch: { database, epoch, source, destination },
      deadline: performance.now() + request.leaseMs,
      timer: setTimeout(() => undefined, 0),
    };
    clearTimeout(hold.timer);
    state.hold = hold;
    this.#armLease(state, hold);
  }

  #armLease(state: DatabaseState, hold: Hold): void {
    clearTimeout(hold.timer);
    hold.timer = setTimeout(
      () => {
        if (state.hold !== hold) return;
        if (performance.now() < hold.deadline) this.#armLease(state, hold);
        else void this.#resolveHold(state, hold);
      },
      Math.max(1, hold.deadline - performance.now()),
    );
  }

  renew(database: string, epoch: number, leaseMs: number): Promise<boolean> {
    const { hold } = this.#state(database);
    if (hold?.epoch.epoch !== epoch) return Promise.resolve(false);
    hold.deadline = Math.max(hold.deadline, performance.now() + leaseMs);
    return Promise.resolve(true);
  }

  /** The lease is over. Stays closed and asks again until the record answers: a guess could serve the wrong side. */
  async #resolveHold(state: DatabaseState, hold: Hold): Promise<void> {
    const { epoch } = hold;
    while (state.hold === hold && !this.#closed) {
      try {
        const resolution = await resolveEpoch(
          this.directory,
          this.connections,
          epoch,
          `the lease of node ${this.name} ran out`,
        );
        this.#log.warn({ epoch: epoch.epoch, outcome: resolution.outcome }, 'lease over: the record decided');
        if (state.hold === hold) this.#settle(epoch.database, epoch.epoch, resolution.serving);
        return;
      } catch (error) {
        // Told the outcome meanwhile: the gate is open, and nobody waits to hear that it is not known.
        if (state.hold !== hold) return;
        this.#log.warn(
          { epoch: epoch.epoch, problem: messageOf(error) },
          'lease over, record not reachable: staying closed',
        );
        this.#tellUndecided(hold, error);
        await delay(RESOLVE_RETRY_MS);
      }
    }
  }

  /** A lease after its end clients are told that nobody can say; until then a server that restarts is waited for. */
  #tellUndecided(hold: Hold, error: unknown): void {
    const { database } = hold.epoch;
    if (performance.now() < hold.deadline + this.#leaseMs) return;
    const problem = new CutoverError('undecided', { database, problem: messageOf(error) });
    this.#proxy.gate(database).fail({ problem, patienceMs: this.#leaseMs });
  }

  async swap(request: SwapRequest): Promise<void> {
    const state = this.#state(request.database);
    if (request.epoch < state.epochSeen || request.epoch < state.epochResolved) return;
    state.peer = request.peer;
    // Knowing the sides is a look into memory here: prepare() and pause() asked the servers.
    await this.directory.sideOf(request.database);
    await this.directory.sideOf(request.peer);
    this.#serve(request.database, request.peer, request.serving);
    state.toSave = this.#saves(request) ? request : null;
    // If this process dies here its clients are gone with it. Who is late follows by itself, and may miss what is notified until then.
    await this.#proxy.listenersMoved();
  }

  /** Writes the names in force into the files, for a migration that was run without cutover_save_config. */
  async save(database: string): Promise<void> {
    const state = this.#state(database);
    const { serving, peer } = state;
    if (serving === null || peer === null) return;
    const request = { database, peer, epoch: state.epochResolved, serving, saveConfig: true };
    const prepared = await this.#files.prepare(request);
    if (prepared) await commitSwap(prepared);
  }

  resume(database: string, epoch: number, serving: Side): Promise<void> {
    const state = this.#state(database);
    if (epoch >= state.epochSeen && epoch > state.epochResolved) this.#settle(database, epoch, serving);
    return Promise.resolve();
  }

  /** The one place where a gate of a cutover opens: the decided side is set first. */
  #settle(database: string, epoch: number, serving: Side): void {
    const state = this.#state(database);
    // Read before a later epoch was decided, and acted on after it: that one stands.
    if (epoch < state.epochResolved) return;
    const news = epoch > state.epochResolved;
    if (state.peer !== null) this.#serve(database, state.peer, serving);
    state.epochResolved = Math.max(state.epochResolved, epoch);
    state.epochSeen = Math.max(state.epochSeen, epoch);
    if (state.hold && state.hold.epoch.epoch <= epoch) {
      clearTimeout(state.hold.timer);
      state.hold = null;
    }
    if (state.hold) return;
    this.#proxy.gate(database).open('cutover');
    // A node that was dead or frozen at the swap hears of it from the record; its files follow all the same.
    const toSave = state.toSave ?? (news ? this.#files.missed(database, state.peer, epoch, serving) : null);
    state.toSave = null;
    if (!toSave || !this.#saves(toSave)) return;
    const { prepared } = state;
    state.prepared = null;
    // Memory first, clients second, files last: neither a slow nor a full disk may hold clients back.
    state.saving = state.saving.then(() => this.#files.save(prepared, toSave));
  }

  /** Sets the side behind `database`; changes nothing where it stands already. */
  #serve(database: string, peer: string, serving: Side): void {
    const state = this.#state(database);
    state.peer = peer;
    state.serving = serving;
    const next = this.#withServing(this.#proxy.config, database, state);
    if (next !== this.#proxy.config) this.#proxy.apply(next);
  }

  #withServing(config: Config, database: string, state: DatabaseState): Config {
    if (!state.serving || state.peer === null) return config;
    const here = this.directory.knownSide(database, config);
    const there = this.directory.knownSide(state.peer, config);
    if (here && sameSide(here, state.serving)) return config;
    if (there && sameSide(there, state.serving)) return swapNames(config, database, state.peer);
    return config;
  }

  /** The configuration a reload or restart puts into force: what the files say, with the decided sides on top. */
  async reload(loaded: Config): Promise<void> {
    this.directory.forget();
    const staged = new Directory(() => loaded);
    await Promise.all(staged.names.map((name) => staged.sideOf(name).catch(() => null)));
    this.directory.adopt(staged);
    let next = loaded;
    for (const [database, state] of this.#states) next = this.#withServing(next, database, state);
    this.#proxy.apply(next);
    await this.recover();
  }

  /** A server refused a write: close, ask the record, answer when the statement may be routed anew. */
  onFenceRefusal(database: string): Promise<void> {
    const state = this.#state(database);
    state.recovering ??= this.#askRecord(database).finally(() => {
      state.recovering = null;
    });
    return state.recovering;
  }

  async #askRecord(database: string): Promise<void> {
    const gate = this.#proxy.gate(database);
    gate.close('recovery');
    try {
      const { serving, whole } = await this.#readPair(database);
      if (!serving) throw new CutoverError('record_unreachable', { database, problem: 'no decision was found' });
      if (whole) this.#forgetWhatIsNotInForce(serving);
      await this.#follow(serving, true);
    } finally {
      if (!this.distrust.has(database)) gate.open('recovery');
    }
  }

  /**
   * The fence refused what this node remembers to be open: a server that failed over has lost what came later, as an abort that
   * was carried out. When both sides answer, their record is in force, and is carried out again.
   */
  #forgetWhatIsNotInForce(serving: Serving): void {
    const state = this.#state(serving.database);
    const known = serving.open ? serving.open.epoch - 1 : serving.epoch;
    state.epochResolved = Math.min(state.epochResolved, known);
  }

  /**
   * Asks the record of every database the engine can reach, and serves what was decided. Called at the start before
   * clients are let through, after a reload, and while a migration exists once a lease.
   *
   * @throws CutoverError `record_newer` at the start: what another program wrote must not be guessed at
   */
  async recover(starting = true): Promise<void> {
    await Promise.all(
      this.directory.names.map(async (name) => {
        await this.directory.sideOf(name).catch(() => null);
      }),
    );
    const seen = new Set<string>();
    for (const name of this.directory.names) {
      const pair = await this.#readPair(name).catch((error: unknown) => {
        if (starting && error instanceof CutoverError && error.code === 'record_newer') throw error;
        this.#log.warn({ database: name, problem: messageOf(error) }, 'the record could not be read');
        return null;
      });
      const serving = pair?.serving;
      if (!serving) continue;
      const key = [sideKey(serving.serving), sideKey(serving.other)].sort().join();
      if (seen.has(key)) continue;
      seen.add(key);
      await this.#follow(serving, starting);
    }
    if (this.#recordSeen) this.#watchRecord();
  }

  /** A node that started before there was a migration hears of it here. */
  #keepWatching(): void {
    this.#recordSeen = true;
    this.#watchRecord();
  }

  /** What the reachable ones of a pair say; `whole` when both answered. */
  async #readPair(name: string): Promise<{ readonly serving: Serving | null; readonly whole: boolean }> {
    const state = this.#states.get(name);
    try {
      const { records, serving } = await this.#records.read(name, state?.peer ?? null);
      if (records.length > 0) this.#recordSeen = true;
      if (records.length === 0 && state?.serving)
        throw new CutoverError('record_unreachable', { database: name, problem: 'neither side answers' });
      if (records.length > 0) this.distrust.lift(name);
      return { serving, whole: records.length === 2 };
    } catch (error) {
      if (error instanceof CutoverError && error.code === 'record_contradictory') {
        // It is looked at again, so that what is put right is noticed.
        this.#recordSeen = true;
        this.distrust.raise(name, error, this.#leaseMs);
      }
      throw error;
    }
  }

  /**
   * Acts on the record: serves the decided side.
   *
   * @param holdOpen an epoch found open is held like a pause of one's own: at the start and after a refusal, not
   *   between an engine's begin and its pause, when clients still run
   */
  async #follow(serving: Serving, holdOpen: boolean): Promise<void> {
    const { database, peer, open } = serving;
    const state = this.#state(database);
    state.peer = peer;
    if (serving.epoch < state.epochResolved) return;
    if (holdOpen && open && open.epoch > state.epochResolved) {
      this.#holdFor(state, open);
      return;
    }
    await this.directory.nameOf(serving.serving);
    const { unfinished } = serving;
    if (unfinished && !(await this.#finish(database, unfinished))) this.#holdFor(state, unfinished);
    else this.#settle(database, serving.epoch, serving.serving);
  }

  /** Holds clients for an epoch whose pause this node was not told of, or which it must not let them through for yet. */
  #holdFor(state: DatabaseState, { database, peer, epoch, source, destination }: Decision): void {
    if (state.hold?.epoch.epoch === epoch) return;
    state.epochSeen = Math.max(state.epochSeen, epoch);
    this.#proxy.gate(database).close('cutover');
    const leaseMs = this.#leaseMs;
    this.#hold(state, { database, peer, epoch, source, destination, leaseMs, drainMs: 0, drainAction: 'abort' });
  }

  /**
   * Opening the decided side is a duty of whoever goes forward (docs/protocol.md, step 6b); the engine may be gone.
   *
   * @returns false where that side answers and does not open: it failed over to a server that lacks what it had
   */
  async #finish(database: string, decision: Decision): Promise<boolean> {
    const { epoch, source, destination } = decision;
    try {
      await resolveEpoch(this.directory, this.connections, { database, epoch, source, destination }, 'decided before');
    } catch (error) {
      // Its side is the right one all the same: it is routed to, and opened when the record is read again.
      this.#log.warn({ epoch, problem: messageOf(error) }, 'the side that was decided could not be opened yet');
      return !(error instanceof CutoverError && error.code === 'destination_shut');
    }
    return true;
  }

  /**
   * Reads the record again every lease: read-only clients are never refused, so no fence would tell them; and a fence that went
   * down is raised again.
   */
  #watchRecord(): void {
    if (this.#watch || this.#closed) return;
    this.#watch = setTimeout(() => {
      this.#watch = null;
      this.recover(false).catch((error: unknown) => {
        this.#log.warn({ problem: messageOf(error) }, 'reading the record again failed');
        this.#watchRecord();
      });
    }, this.#leaseMs);
    this.#watch.unref();
  }

  /** Ends timers and connections; gates stay as they are. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#watch) clearTimeout(this.#watch);
    for (const state of this.#states.values()) {
      if (state.hold) clearTimeout(state.hold.timer);
      state.hold = null;
    }
    await Promise.all([...this.#states.values()].map((state) => state.saving));
    await this.connections.close();
  }
}
