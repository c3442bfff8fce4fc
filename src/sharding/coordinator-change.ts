/**
 * One task: carry the coordinator of a configured database through one change of the shards' schema, so that nobody reads the new schema of
 * the shards by the old one of the coordinator, whoever dies.
 *
 * begin: readers wait. close, just before the shards commit: a read that gets past the barrier all the same, since its holder died, ends in
 * an error. end: the coordinator becomes what the shards are then, and readers go on; where that fails it stays closed, until somebody
 * brings it in step.
 */
import type { Config } from '../config/config.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import { connect, unansweredMs, type Connection } from '../postgres/connection.js';
import { analyzeCoordinator } from '../postgres/coordinator/analyze.js';
import { closeCoordinator, raiseBarrier, stillHeld } from '../postgres/coordinator/barrier.js';
import { makeInTransaction } from '../postgres/coordinator/make.js';
import { engineEndpoint, type Endpoint } from '../postgres/endpoint.js';
import { ANALYZE_LIMITS, keepCoordinator } from './coordinator-keeping.js';
import { coordinatorAt, coordinatorSpec } from './coordinator-place.js';

/** Before each of these; to die at in tests. */
export type ChangeStep = 'close' | 'commit' | 'make';

export interface ChangeOptions {
  /** for who reads at the coordinator or makes it */
  readonly waitMs: number;
  /** for which readers wait at the longest: then the change is not committed */
  readonly holdMs: number;
  readonly onStep: (step: ChangeStep) => void | Promise<void>;
}

export const CHANGE_OPTIONS: ChangeOptions = { waitMs: 10_000, holdMs: 600_000, onStep: () => undefined };
const CONNECT_TIMEOUT_MS = 10_000;
const ASK_EVERY_MS = 15_000;
const NO_SUCH_DATABASE = '3D000';

export class CoordinatorChange {
  /** readers have waited for too long: it must not be committed */
  overdue: CutoverError | null = null;
  readonly #config: Config;
  readonly #database: string;
  readonly #place: Endpoint;
  readonly #connection: Connection;
  readonly #options: ChangeOptions;
  readonly #asking: NodeJS.Timeout;
  readonly #limit: NodeJS.Timeout;
  #closed = false;
  #ended: Promise<string | null> | null = null;

  private constructor(
    config: Config,
    database: string,
    place: Endpoint,
    connection: Connection,
    options: ChangeOptions,
    overdue: () => void,
  ) {
    this.#config = config;
    this.#database = database;
    this.#place = place;
    this.#connection = connection;
    this.#options = options;
    this.#asking = setInterval(() => {
      // Who is at work there is not silent.
      if (unansweredMs(connection) === 0) stillHeld(connection).catch(() => undefined);
    }, ASK_EVERY_MS).unref();
    this.#limit = setTimeout(() => {
      const limit = `readers have waited for ${(options.holdMs / 1_000).toString()} s, which is the longest`;
      this.overdue = notFollowed(limit);
      connection.end().catch(() => undefined);
      overdue();
    }, options.holdMs).unref();
  }

  /**
   * Lets readers wait, before anything is changed on a shard: one of them could hold the coordinator and wait for the shard.
   *
   * @param overdue called when they have waited for too long
   * @returns null where there is no coordinator
   * @throws CutoverError `shards_not_committed`
   */
  static async begin(
    config: Config,
    database: string,
    options: ChangeOptions,
    overdue: () => void,
  ): Promise<CoordinatorChange | null> {
    let connection: Connection | null = null;
    try {
      const place = coordinatorAt(config, database, engineEndpoint(config, database));
      connection = await connect(place, { connectTimeoutMs: CONNECT_TIMEOUT_MS });
      await raiseBarrier(connection, options.waitMs);
      return new CoordinatorChange(config, database, place, connection, options, overdue);
    } catch (error) {
      await connection?.end().catch(() => undefined);
      if (connection === null && (error as { code?: string }).code === NO_SUCH_DATABASE) return null;
      throw notFollowed(messageOf(error), error);
    }
  }

  /**
   * To be called when the change is complete on the shards, and before it is committed.
   *
   * @throws CutoverError `shards_not_committed`: it must not be committed
   */
  async close(): Promise<void> {
    try {
      await this.#options.onStep('close');
      await stillHeld(this.#connection);
      // Also where the answer is lost: whoever ends it makes the mappings that are missing.
      this.#closed = true;
      await closeCoordinator(this.#place);
      // Who read before has ended, who comes now waits or fails; without the barrier one could have come in between.
      await stillHeld(this.#connection);
      // What is being committed is not given up.
      clearTimeout(this.#limit);
    } catch (error) {
      throw this.overdue ?? notFollowed(messageOf(error), error);
    }
    await this.#options.onStep('commit');
  }

  /**
   * However the change has ended: the coordinator becomes what the shards are. May be called again.
   *
   * @returns why it stays closed; null: it is in step, or was not touched
   */
  end(): Promise<string | null> {
    this.#ended ??= this.#end();
    return this.#ended;
  }

  async #end(): Promise<string | null> {
    clearTimeout(this.#limit);
    const connection = this.#connection;
    try {
      if (!this.#closed) await connection.query('ROLLBACK').catch(() => undefined);
      else {
        await this.#options.onStep('make');
        await this.#make();
      }
      return null;
    } catch (error) {
      return messageOf(error);
    } finally {
      clearInterval(this.#asking);
      await connection.end().catch(() => undefined);
    }
  }

  async #make(): Promise<void> {
    const connection = this.#connection;
    const held = await stillHeld(connection).then(
      () => true,
      () => false,
    );
    if (!held) {
      // Readers have errors by now, so it matters to be soon.
      await keepCoordinator(this.#config, this.#database);
      return;
    }
    await makeInTransaction(connection, coordinatorSpec(this.#config, this.#database));
    await connection.query('COMMIT');
    // The planner does without what this does not reach.
    await analyzeCoordinator(connection, ANALYZE_LIMITS).catch(() => undefined);
  }
}

function notFollowed(problem: string, cause?: unknown): CutoverError {
  return new CutoverError(
    'shards_not_committed',
    { problem: `the coordinator could not follow: ${problem}` },
    { cause },
  );
}
