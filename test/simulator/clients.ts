/**
 * One task: be the applications: clients of a node, who wait at its gate as a client session does, and writers straight at a
 * server.
 */
import { GateWait } from '../../src/proxy/gate-wait.js';
import type { Database } from './database.js';
import { SqlError } from './database.js';
import type { Session } from './fake-proxy.js';
import type { RunningNode } from './processes.js';
import { Actor } from './scheduler.js';
import type { World } from './world.js';
import { FENCE_REFUSAL, writing, type Outcome, type Write, type WriteKind } from './writes.js';

const REROUTES_MAX = 3;
const GATE_LIMIT_MS = 60_000;
export const DATABASE = 'app';
/** Longest time between two messages of a transaction. */
const HOLD_MS = 12;
/** The same of writers straight at a server: jobs work between their statements, some for longer than a seal waits for them. */
const STRAIGHT_HOLDS_MS = [12, 12, 12, 12, 12, 100, 100, 100, 100, 700] as const;

function outcomeOf(error: Error | null): Outcome {
  if (error === null) return 'acknowledged';
  return error instanceof SqlError && error.code === FENCE_REFUSAL ? 'refused' : 'unknown';
}

function writeOf(world: World, writer: string, straight: boolean): Write {
  const { scheduler } = world;
  const kind: WriteKind = scheduler.chance(60)
    ? 'single'
    : scheduler.chance(straight ? 60 : 100)
      ? 'transaction'
      : 'snapshot';
  const longestMs = straight ? scheduler.pick(STRAIGHT_HOLDS_MS) : HOLD_MS;
  return { id: world.book.next(writer), kind, holdMs: scheduler.between(0.1, longestMs) };
}

/** A client of a node, for the life of the node's process. */
export class NodeClient {
  readonly #world: World;
  readonly #node: RunningNode;
  readonly #name: string;
  /** since when the write at hand is held back, and for how long it was before */
  waitingSince: number | null = null;
  #reroutes = 0;

  constructor(world: World, node: RunningNode, index: number) {
    this.#world = world;
    this.#node = node;
    this.#name = `${node.actor.name}.${index.toString()}`;
    this.#think();
  }

  #think(): void {
    const { scheduler } = this.#world;
    if (this.#world.writersEnded) return;
    scheduler.after(
      this.#node.actor,
      scheduler.between(1, this.#world.thinkMs),
      () => {
        if (this.#world.writersEnded) return;
        this.#reroutes = 0;
        this.#wait(writeOf(this.#world, this.#name, false));
      },
      true,
    );
  }

  #wait(write: Write): void {
    this.waitingSince ??= this.#world.scheduler.now;
    const { proxy } = this.#node;
    new GateWait(
      proxy.gate(DATABASE),
      DATABASE,
      GATE_LIMIT_MS,
      () => {
        this.#pass(write);
      },
      () => {
        this.#end(write, 'failed');
      },
    ).begin();
  }

  #waited(): void {
    if (this.waitingSince !== null) this.#world.invariants.waited(this.#world.scheduler.now - this.waitingSince);
    this.waitingSince = null;
  }

  #pass(write: Write): void {
    const { proxy, actor } = this.#node;
    const { scheduler } = this.#world;
    const { waitingSince } = this;
    this.#waited();
    const database = this.#world.databaseAt(proxy.route(DATABASE));
    const holder = { clientId: 1, user: 'app', application: this.#name, serverPid: 1, transactionMs: 0 };
    const session: Session = { database: DATABASE, holder };
    proxy.sessions.add(session);
    scheduler.after(
      database,
      scheduler.between(0.1, 0.5),
      () => {
        database.transact(
          actor,
          (transaction) => writing(transaction, write, this.#world.flagSeen),
          (error) => {
            scheduler.after(actor, scheduler.between(0.1, 0.5), () => {
              proxy.sessions.delete(session);
              proxy.gate(DATABASE).released();
              this.#answered(write, error, waitingSince);
            });
          },
          { single: false },
        );
      },
      true,
    );
  }

  #answered(write: Write, error: Error | null, waitingSince: number | null): void {
    const outcome = outcomeOf(error);
    if (outcome !== 'refused' || write.kind !== 'single' || this.#reroutes >= REROUTES_MAX) {
      this.#end(write, outcome);
      return;
    }
    this.#reroutes += 1;
    this.waitingSince = waitingSince;
    this.#node.node.onFenceRefusal(DATABASE).then(
      () => {
        this.#wait(write);
      },
      () => {
        this.#end(write, 'refused');
      },
    );
  }

  #end(write: Write, outcome: Outcome): void {
    this.#waited();
    this.#world.book.note(write, outcome);
    if (outcome !== 'acknowledged') this.#world.invariants.clientNoticed(this.#name, outcome);
    this.#think();
  }
}

/** An application that bypasses the proxy: it writes at one server, whichever side serves. */
export class StraightWriter {
  readonly #world: World;
  readonly #database: Database;
  readonly #actor: Actor;

  constructor(world: World, database: Database, index: number) {
    this.#world = world;
    this.#database = database;
    this.#actor = new Actor(`straight.${database.host}.${index.toString()}`);
    this.#think();
  }

  #think(): void {
    const { scheduler } = this.#world;
    if (this.#world.writersEnded) return;
    scheduler.after(
      this.#actor,
      scheduler.between(1, 2 * this.#world.thinkMs),
      () => {
        if (this.#world.writersEnded) return;
        const write = writeOf(this.#world, this.#actor.name, true);
        scheduler.after(
          this.#database,
          scheduler.between(0.1, 0.5),
          () => {
            this.#send(write);
          },
          true,
        );
      },
      true,
    );
  }

  #send(write: Write): void {
    const { scheduler } = this.#world;
    this.#database.transact(
      this.#actor,
      (transaction) => writing(transaction, write, this.#world.flagSeen),
      (error) => {
        scheduler.after(
          this.#actor,
          scheduler.between(0.1, 0.5),
          () => {
            this.#world.book.note(write, outcomeOf(error));
            this.#think();
          },
          true,
        );
      },
      { single: false },
    );
  }
}
