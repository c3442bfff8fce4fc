/** One task: keep, for one session, what tells where its batches run, through a RELOAD or a swap of names. */
import { messageOf, type CutoverError } from '../errors/errors.js';
import type { FrameScanner } from '../wire/frames.js';
import type { Borrowing } from './borrowing.js';
import type { ClientStatements } from './client-statements.js';
import type { Forwarder } from './forwarder.js';
import type { Mover } from './first-statement.js';
import { placeOn, type Place } from './place.js';
import { Placement } from './placement.js';
import { ReadSplit } from './read-split.js';
import type { SessionContext } from './session-context.js';
import { refusedChange } from './schema-change.js';
import { sessionError } from './session-error.js';
import type { TrackedSettings } from './tracked-settings.js';

/** Where everything of a database with one shard and no replicas runs. */
export const ONLY_SHARD: Place = { kind: 'shard', shard: 0 };

interface Session {
  readonly id: number;
  readonly user: string;
  readonly database: string;
  readonly statements: ClientStatements;
}

export class SessionPlace {
  /** of a sharded database, from its first statement on; null: it has one shard */
  placement: Placement | null = null;
  readonly #session: Session;
  readonly #context: SessionContext;
  readonly #settings: TrackedSettings;
  readonly #forwarder: Forwarder;
  /** of a database with replicas */
  #split: ReadSplit | null = null;
  /** the configuration by which there is one */
  #splitVersion = -1;

  constructor(session: Session, context: SessionContext, settings: TrackedSettings, forwarder: Forwarder) {
    this.#session = session;
    this.#context = context;
    this.#settings = settings;
    this.#forwarder = forwarder;
  }

  /** Between two transactions a RELOAD or a swap of names may have led the database to shards, or away from them. */
  look(): Placement | null {
    const { routers } = this.#context;
    if (!routers.isSharded(this.#session.database)) this.placement = null;
    else this.placement ??= this.#newPlacement();
    this.#forwarder.screen = this.placement;
    return this.placement;
  }

  /** Where the next batch runs, when no transaction is open. A session that keeps its server stays there. */
  next(scanner: FrameScanner, borrowing: Borrowing): Place {
    const placement = this.look();
    if (placement !== null) return placement.next(scanner);
    const split = this.#currentSplit();
    if (split === null) return ONLY_SHARD;
    if (borrowing.keeps) return placeOn(borrowing.shard);
    // Each refusal is a ban, but bans may be short.
    return borrowing.refusals > split.size ? ONLY_SHARD : split.next(scanner);
  }

  /** Asked of an open transaction whose server is free; null: it stays where it is. */
  get mover(): Mover | null {
    const split = this.#splitVersion === this.#context.routes.version ? this.#split : null;
    return this.placement ?? split?.first ?? null;
  }

  #currentSplit(): ReadSplit | null {
    const { routes } = this.#context;
    if (this.#splitVersion === routes.version) return this.#split;
    const { user, database, statements } = this.#session;
    const replicas = routes.replicasOf(user, database);
    this.#split = replicas === null ? null : new ReadSplit(statements, this.#settings, replicas);
    this.#splitVersion = routes.version;
    return this.#split;
  }

  #newPlacement(): Placement {
    const { routers, journal } = this.#context;
    const refuse = (text: string): CutoverError | null => refusedChange(this.#context, this.#session, () => text);
    const told = (error: CutoverError): void => {
      journal.told(error, 'ERROR', this.#session);
    };
    return new Placement(this.#session, routers, this.#settings, this.#session.statements, refuse, told);
  }

  /** Where an open transaction that has only begun may begin anew after a swap of names; null: nobody can tell yet. */
  shardAnew(): number | null {
    const placement = this.look();
    return placement === null ? 0 : placement.anew();
  }

  /** Has the router read. Never rejects. @returns why it could not be */
  async read(): Promise<CutoverError | null> {
    const { routers, logger } = this.#context;
    const { id, user, database } = this.#session;
    try {
      await routers.read(user, database);
      return null;
    } catch (error) {
      logger.warn({ client: id, database }, messageOf(error));
      return sessionError(error);
    }
  }
}
