/**
 * One task: tell on which shard what a session sends must run, in a transaction too.
 *
 * Outside a transaction each batch goes where its statements belong. BEGIN runs where the session was last. As long as the
 * transaction has done nothing but begin (BEGIN, SET, SAVEPOINT) and read what every shard has, it can be begun anew on another shard
 * (`opening`); from its first other statement on it stays there, and further shards take part in it where that is safe
 * (shard-transaction.ts). From then on what is said of the transaction itself is said to all of them.
 */
import { CutoverError } from '../errors/errors.js';
import type { KeyedBy } from '../sharding/router-binding.js';
import { commentHint } from '../sharding/router-hints.js';
import { REFUSAL_TEXTS } from '../sharding/router-refusals.js';
import type { StatementParameters } from '../sharding/router-parameters.js';
import { commonRoute, type Route } from '../sharding/router.js';
import type { SessionHint, SessionStep } from '../sharding/statement-verdict.js';
import { STATUS } from '../wire/codes.js';
import type { FrameScanner } from '../wire/frames.js';
import { TOO_LONG_BYTES } from './bound-statement.js';
import type { ClientStatements } from './client-statements.js';
import type { Screen } from './forwarder.js';
import { OpenTransaction } from './open-transaction.js';
import { raising } from './raising.js';
import { MORE, placeName, placeOn, STAY, type Move, type Place } from './place.js';
import { COORDINATOR } from './routes.js';
import { NO_PATH, saidBySettings, type SaidBySettings } from './said-by-settings.js';
import { hintOf } from './session-hint.js';
import { mayChangePath } from './session-statement.js';
import type { ShardRouters, UserRouter } from './shard-routers.js';
import {
  ANYWHERE,
  both,
  CONTROL_NOT_ALONE,
  needOfRoute,
  needOfSession,
  NOT_ALONE,
  refused,
  UNKNOWN,
  type ControlNeed,
  type Need,
  type SeveralRoute,
} from './statement-need.js';
import { holdsTables, isExplained, isOnlyThere, leavesNothing, mayOpenCursor, isMissed } from './statement-words.js';
import { StatementsAhead, type Rest, type StatementAhead } from './statements-ahead.js';
import { severalPlanOf } from './several-plan.js';
import type { SessionSettings } from './settings.js';
import type { TrackedSettings } from './tracked-settings.js';
import { readWriteBatch } from './write-batch.js';

/** Bytes of a batch that are kept while nothing in it has told where it belongs. */
const UNREAD_BYTES_MAX = 65_536;

/** What was told of the first statement of the batch ahead, with everything it was told from. */
interface Ahead {
  readonly buffer: Buffer;
  readonly start: number;
  readonly text: string;
  readonly portal: string;
  /** it was routed before, with another key at most, and opens no cursor */
  readonly repeated: boolean;
  readonly need: Need;
  readonly router: UserRouter | null;
  readonly said: SaidBySettings;
  readonly utf8: boolean;
}

interface Session {
  readonly id: number;
  readonly user: string;
  readonly database: string;
}

export class Placement implements Screen {
  /** where the session's server is, or was last: a shard or the coordinator */
  #shard: number;
  /** the shard where it was last; to begin with sessions are spread over them */
  #home: number;
  readonly #session: Session;
  readonly #routers: ShardRouters;
  readonly #settings: TrackedSettings;
  readonly #statements: ClientStatements;
  readonly #refuse: (text: string) => CutoverError | null;
  readonly #told: (error: CutoverError) => void;
  #router: UserRouter | null = null;
  readonly #transaction = new OpenTransaction();
  /** why the statement ahead is not run */
  #problem: CutoverError | null = null;
  /** the batch ahead begins with EXPLAIN, whose reader wants to know where it runs */
  #explained = false;
  /** the first statement of the batch ahead, until it is sent or something changes */
  #ahead: Ahead | null = null;
  #said: SaidBySettings | null = null;
  /** of the statement that was looked at last: what tells its shard */
  #keyed: KeyedBy | null = null;

  /**
   * @param refuse asked for every change of the schema: why it must not be made now, or null
   * @param told called with each error that the client reads in the place of a statement's answer
   */
  constructor(
    session: Session,
    routers: ShardRouters,
    settings: TrackedSettings,
    statements: ClientStatements,
    refuse: (text: string) => CutoverError | null,
    told: (error: CutoverError) => void,
  ) {
    this.#session = session;
    this.#refuse = refuse;
    this.#told = told;
    this.#routers = routers;
    this.#settings = settings;
    this.#statements = statements;
    this.#home = session.id;
    this.#shard = session.id;
  }

  /** Where the next batch of this session must run, when no transaction is open. */
  next(scanner: FrameScanner): Place {
    const router = this.#routers.readyFor(this.#session.user, this.#session.database);
    this.#router = router;
    if (router === null) return { kind: 'read' };
    this.#home %= router.shards;
    const need = this.#needAhead(scanner);
    if (need === null) return { kind: 'more' };
    if (need.kind === 'several') return this.#several(scanner, need.text, need.write);
    if (need.kind !== 'refused') return placeOn(this.#go(need.kind === 'shard' ? need.shard : this.#home));
    if (need.unknown && this.#routers.mayBeOutdated(router)) return { kind: 'read' };
    return { kind: 'refused', error: this.#refusal(need.reason) };
  }

  /** Where the next batch of the open transaction goes: `stay`: it is at its place; `more`: the batch has to come first. */
  move(scanner: FrameScanner): Move {
    const transaction = this.#transaction;
    if (!transaction.open || this.#problem !== null) return STAY;
    const need = this.#needAhead(scanner);
    if (need === null) return MORE;
    if (need.kind === 'again') return transaction.onSeveral ? this.#control(scanner, need) : STAY;
    if (transaction.failed) return STAY;
    if (need.kind === 'several') return this.#moveToSeveral(scanner, need.text, need.write);
    if (need.kind !== 'shard' || need.shard === this.#shard) return STAY;
    if (!transaction.acted) return { kind: 'anew', shard: this.#go(need.shard) };
    if (this.#answersHere(need)) return STAY;
    const problem = this.#turnProblem(need);
    if (problem !== null) return this.#staying(this.#elsewhere(need.shard, problem));
    transaction.onSeveral = true;
    return { kind: 'several', plan: { kind: 'enlist', shard: need.shard } };
  }

  /** The coordinator answers what only reads, as long as nothing was written that it would not see. */
  #answersHere(need: Extract<Need, { kind: 'shard' }>): boolean {
    return need.everywhere && this.#shard === COORDINATOR && !this.#transaction.wrote;
  }

  #turnProblem(need: Extract<Need, { kind: 'shard' }>): string | null {
    if (need.shard === COORDINATOR && this.#transaction.wrote)
      return 'the coordinator would not see what the transaction has written';
    if (need.mixed) return MIXED;
    return this.#transaction.severalProblem(...this.#isolation);
  }

  #moveToSeveral(scanner: FrameScanner, text: string, write: SeveralRoute): Move {
    const transaction = this.#transaction;
    const problem = transaction.severalProblem(...this.#isolation);
    if (problem !== null)
      return this.#staying(this.#refusal(`it needs several shards in a transaction, and ${problem}`));
    const changesSchema = write.kind === 'every' && write.ddl;
    // The tables are held by the coordinator's own sessions, which would be waited for without an end.
    if (transaction.readOver && write.kind === 'every' && !write.ddl && holdsTables(text))
      return this.#staying(this.#refusal('the transaction has read over several shards, and holds the tables'));
    const place = this.#several(scanner, text, write);
    if (place.kind === 'more') return MORE;
    if (place.kind !== 'several') return place.kind === 'refused' ? this.#staying(place.error) : STAY;
    transaction.act(WRITES);
    transaction.onSeveral = true;
    // What it has read there is ended before (shard-transaction.ts).
    if (changesSchema) transaction.readOver = false;
    return { kind: 'several', plan: place.plan };
  }

  /** What is said of a transaction on several servers is said to all of them. */
  #control(scanner: FrameScanner, { text, hints, steps, count }: ControlNeed): Move {
    const transaction = this.#transaction;
    const [step] = steps;
    if (transaction.failed && step !== 'commit' && step !== 'rollback' && step !== 'rollback-to') return STAY;
    if (step === 'chain' || step === 'set' || step === 'role')
      return this.#staying(this.#refusal('of a transaction on several shards it is not implemented; SET LOCAL is'));
    const batch = readWriteBatch(scanner.buffer.subarray(scanner.position), this.#statements);
    if (batch === 'more') {
      scanner.hold(scanner.unreadBytes + 1);
      return MORE;
    }
    if (batch === null || count > 1) return this.#staying(this.#refusal(CONTROL_NOT_ALONE));
    if (step === 'commit' || step === 'rollback')
      return { kind: 'several', plan: { kind: 'end', commit: step === 'commit' && !transaction.failed, batch } };
    this.#say(text, hints, steps);
    return { kind: 'several', plan: { kind: 'everywhere', batch, back: step === 'rollback-to' } };
  }

  /** The batch goes where the transaction is, and fails there. */
  #staying(error: CutoverError): Move {
    this.#problem = error;
    return STAY;
  }

  /** The transaction goes on on this shard. @param notEnlisted why the batch ahead could not go to its own, and fails here */
  wentOn(shard: number, status: number, notEnlisted: CutoverError | null): void {
    this.#go(shard);
    this.settled(status);
    this.#problem = notEnlisted;
  }

  /**
   * By another configuration: a shard where the open transaction, which has only begun, may begin anew and be moved from; null: the router
   * is not read.
   */
  anew(): number | null {
    const router = this.#routers.readyFor(this.#session.user, this.#session.database);
    if (router === null) return null;
    this.#router = router;
    return this.#go(this.#home % router.shards);
  }

  /** A statement for several shards has to be the whole batch. */
  #several(scanner: FrameScanner, text: string, write: SeveralRoute): Place {
    const refusedAs = (reason: string): Place => ({ kind: 'refused', error: this.#refusal(reason) });
    const { statements } = this.#settings.current;
    // What is prepared belongs to the role that prepares it, and whoever resolves logs in as the user.
    if (statements.has('role') || statements.has('session_authorization'))
      return refusedAs('it writes on several shards after SET ROLE, which is not implemented');
    const batch = readWriteBatch(scanner.buffer.subarray(scanner.position), this.#statements);
    if (batch === 'more') {
      scanner.hold(scanner.unreadBytes + 1);
      return { kind: 'more' };
    }
    if (batch === null) return refusedAs(NOT_ALONE);
    const schema = write.kind === 'every' && write.ddl;
    const forbidden = schema ? this.#refuse(text) : null;
    if (forbidden !== null) return { kind: 'refused', error: forbidden };
    if (this.#router === null) return { kind: 'read' };
    const { router, shards } = this.#router;
    const plan = severalPlanOf({ text, write, batch, router, shards, utf8: this.#settings.utf8 });
    return typeof plan === 'string' ? refusedAs(plan) : { kind: 'several', plan };
  }

  #go(shard: number): number {
    this.#shard = shard;
    if (shard !== COORDINATOR) this.#home = shard;
    return shard;
  }

  /** What begins the open transaction on another shard. */
  get opening(): string {
    return this.#transaction.opening;
  }

  /** What to tell the client before the batch ahead is sent; null for most. Told once. */
  takeNotice(): string | null {
    if (!this.#explained) return null;
    this.#explained = false;
    return `runs on ${placeName(this.#shard)} of "${this.#session.database}"`;
  }

  /** The server is idle, in a transaction, or in a failed one. */
  settled(status: number): void {
    this.#transaction.settled(status);
    this.#problem = null;
    if (status === STATUS.idle) this.#ahead = null;
  }

  instead(text: string, parameters: StatementParameters, portal: string): string | null {
    this.#ahead = null;
    const problem = this.#problem ?? this.#insteadOf(this.#needOf(text, parameters), text, portal);
    this.#problem = null;
    if (problem === null) return null;
    this.#told(problem);
    return raising(problem);
  }

  passes(buffer: Buffer, start: number): boolean {
    const ahead = this.#ahead;
    this.#ahead = null;
    if (this.#problem !== null) return false;
    // What the need was told from is the same.
    const same = ahead?.buffer === buffer && ahead.start === start && ahead.router === this.#router;
    if (!same || ahead.said !== this.#saidBySettings() || ahead.utf8 !== this.#settings.utf8) return false;
    const { need, text, portal } = ahead;
    if (!ahead.repeated || need.kind !== 'shard' || need.shard !== this.#shard)
      return this.#insteadOf(need, text, portal) === null;
    this.#transaction.act(need.everywhere ? READS : WRITES);
    return true;
  }

  /** Why it cannot run here; null: it may. */
  #insteadOf(need: Need, text: string, portal: string): CutoverError | null {
    if (need.kind === 'refused') return this.#refusal(need.reason);
    if (need.kind === 'several') return this.#refusal(NOT_ALONE);
    if (need.kind === 'again' && this.#transaction.onSeveral) return this.#refusal(CONTROL_NOT_ALONE);
    if (need.kind !== 'again' && need.mixed && this.#transaction.onSeveral) return this.#refusal(MIXED);
    const missing = this.#shard === COORDINATOR && need.kind !== 'again' ? this.#coordinatorProblem(text) : null;
    if (missing !== null) return this.#refusal(missing);
    if (need.kind === 'shard' && need.shard !== this.#shard && !this.#answersHere(need))
      return this.#elsewhere(need.shard, 'it is not the first of its batch');
    this.#note(need, text, portal);
    return null;
  }

  /** By hand a shard is asked for, and what names mean may be uncertain: then the text stays. */
  rewritten(textOf: () => string): string | null {
    if (this.#shard !== COORDINATOR || this.#router?.coordinator.ready !== true) return null;
    const text = textOf();
    const path = this.#transaction.pathUncertain ? NO_PATH : this.#saidBySettings().path;
    const hinted =
      hintOf(this.#settings.current, this.#transaction.hints).hint !== undefined || commentHint(text) !== null;
    return path === NO_PATH || hinted ? null : this.#router.router.partial(text, path);
  }

  /** @returns null when more must come before anything can be said: the scanner waits for it */
  #needAhead(scanner: FrameScanner): Need | null {
    if (scanner.awaitsRest) return null;
    const repeated = this.#repeatedAhead(scanner);
    if (repeated !== null) return repeated;
    const ahead = new StatementsAhead(scanner.buffer.subarray(scanner.position), this.#statements);
    let first = true;
    let only: Need | null = null;
    for (let next = ahead.next(); next !== null; next = ahead.next()) {
      if (first) this.#explained = isExplained(next.text);
      const need = this.#needOf(next.text, next.parameters);
      if (first) this.#ahead = this.#aheadOf(scanner, next, need);
      if (first && need.kind === 'shard') this.#keep(next, need);
      // What is refused behind another statement is refused when it is its turn.
      if (need.kind === 'shard' || (first && (need.kind === 'refused' || need.kind === 'several'))) return need;
      only = first && need.kind === 'again' ? need : null;
      first = false;
    }
    return this.#needOfRest(scanner, ahead.rest, only);
  }

  /** A batch that is long without running anything is looked at as it passes. */
  #needOfRest(scanner: FrameScanner, rest: Rest | null, only: Need | null): Need | null {
    if (rest === null || (!rest.cut && scanner.unreadBytes > UNREAD_BYTES_MAX)) return only ?? ANYWHERE;
    if (rest.neededBytes > TOO_LONG_BYTES) return refused(REFUSAL_TEXTS['too-long']);
    scanner.hold(rest.neededBytes);
    return null;
  }

  #aheadOf({ buffer, position }: FrameScanner, { start, text, portal }: StatementAhead, need: Need): Ahead {
    const { utf8 } = this.#settings;
    const [router, said] = [this.#router, this.#saidBySettings()];
    return { buffer, start: position + start, text, portal, repeated: false, need, router, said, utf8 };
  }

  /** Of a statement that was routed before: see repeated-statements.ts. */
  #repeatedAhead({ buffer, position }: FrameScanner): Need | null {
    const router = this.#router;
    const said = this.#saidBySettings();
    if (router === null || !this.#isPlain(said)) return null;
    const { repeated } = router;
    const known = repeated.find(buffer, position, this.#statements, said.pathKey);
    if (known === null) return null;
    const { need, start } = repeated;
    this.#ahead = { buffer, start, text: known.text, portal: '', repeated: true, need, router, said, utf8: true };
    this.#explained = false;
    return need;
  }

  /** The next one like it need not be looked at as this one was. */
  #keep({ text, portal, body }: StatementAhead, { shard, everywhere, mixed }: Extract<Need, { kind: 'shard' }>): void {
    const [keyed, said] = [this.#keyed, this.#saidBySettings()];
    if (keyed === null || shard === COORDINATOR || mixed || portal !== '' || !this.#isPlain(said)) return;
    if (this.#explained || mayOpenCursor(text)) return;
    const known = { text, path: said.pathKey, everywhere };
    if (keyed.kind === 'literal') this.#router?.repeated.keepQuery(known, keyed);
    else if (body !== null) this.#router?.repeated.keepBind(known, keyed, body);
  }

  /** Nothing but the statement and the search path has a say in where it goes. */
  #isPlain({ hint }: SaidBySettings): boolean {
    const { hints, pathUncertain } = this.#transaction;
    return hints.length === 0 && !pathUncertain && hint.hint === undefined && this.#settings.utf8;
  }

  #saidBySettings(): SaidBySettings {
    return (this.#said = saidBySettings(this.#settings.current, this.#router?.defaults, this.#said));
  }

  #needOf(text: string, parameters: StatementParameters): Need {
    if (this.#router === null) return refused('its router is not read');
    const { router } = this.#router;
    const said = this.#saidBySettings();
    const { hints } = this.#transaction;
    const { hint } = hints.length === 0 ? said.hint : hintOf(this.#settings.current, hints);
    const { utf8 } = this.#settings;
    const statements = router.route(text, {
      searchPath: this.#transaction.pathUncertain ? NO_PATH : said.path,
      parameters: parameters.utf8 === utf8 ? parameters : { ...parameters, utf8 },
      hint,
    });
    const [only] = statements;
    this.#keyed = only !== undefined && statements.length === 1 ? only.keyed : null;
    if (only !== undefined && statements.length === 1 && only.route.kind !== 'session')
      return this.#needOfTables(only.route, text, hint !== undefined);
    const forTables = statements.filter(({ route }) => route.kind !== 'session');
    if (forTables.length < statements.length && forTables.length > 0 && mayChangePath(text))
      return refused('it changes what names mean and uses tables in one text');
    const session = statements.flatMap(({ route, start, end }) =>
      route.kind === 'session' ? [needOfSession(route, text.slice(start, end))] : [],
    );
    if (forTables.length > 0) {
      const need = this.#needOfTables(commonRoute(forTables), text, hint !== undefined);
      session.push(need.kind === 'several' && statements.length > 1 ? refused(NOT_ALONE) : need);
    }
    const controls = session.some(({ kind }) => kind === 'again');
    const need = session.reduce(both, { kind: 'again', text, hints: [], steps: [], count: 0 });
    const mixes = session.some((each) => each.kind === 'any' && each.mixed);
    if (need.kind !== 'shard' && need.kind !== 'any') return need;
    if (controls && this.#transaction.onSeveral) return refused(CONTROL_NOT_ALONE);
    return { ...need, mixed: need.mixed || mixes || controls };
  }

  /** A hint asks for the rows of one shard, which the coordinator does not tell apart. */
  #needOfTables(route: Route, text: string, hinted: boolean): Need {
    const need = needOfRoute(route, text);
    if (need.kind !== 'shard') return need;
    const problem = need.shard === COORDINATOR ? this.#coordinatorProblem(text) : null;
    if (problem !== null) return refused(problem, route.kind === 'coordinator' && route.reason.startsWith(UNKNOWN));
    const everywhere = need.everywhere && !hinted && commentHint(text) === null && !isOnlyThere(text);
    return everywhere === need.everywhere ? need : { ...need, everywhere };
  }

  /** Why the coordinator cannot answer a text; null when it can. */
  #coordinatorProblem(text: string): string | null {
    const state = this.#router?.coordinator;
    if (state?.ready !== true)
      return `it needs several shards, and ${state?.reason ?? 'nothing is known of a coordinator'}`;
    const missing = state.leftOut.find(({ object }) => isMissed(text, object));
    return missing === undefined ? null : `the coordinator does not have ${missing.object}: ${missing.reason}`;
  }

  /** A statement is on its way to the server. */
  #note(need: Need, text: string, portal: string): void {
    if (need.kind === 'again') {
      this.#say(text, need.hints, need.steps);
      return;
    }
    const transaction = this.#transaction;
    const any = need.kind === 'any';
    // What every shard answers alike, and nothing can come back to, need not be asked again elsewhere.
    if (any && portal === '' && leavesNothing(text) && transaction.readsAnew(...this.#isolation)) return;
    const writes = need.kind === 'shard' && !need.everywhere;
    const cursor = portal !== '' || mayOpenCursor(text);
    const over = this.#shard === COORDINATOR;
    transaction.act({ writes, over, cursor, mixed: (any || need.kind === 'shard') && need.mixed });
  }

  #say(text: string, hints: readonly SessionHint[], steps: readonly SessionStep[]): void {
    const transaction = this.#transaction;
    transaction.hints.push(...hints);
    if (mayChangePath(text)) transaction.pathUncertain = true;
    transaction.say(text, steps);
  }

  get #isolation(): [SessionSettings, string | undefined] {
    return [this.#settings.current, this.#router?.defaults.isolation];
  }

  #refusal(reason: string): CutoverError {
    return new CutoverError('statement_not_routed', { database: this.#session.database, reason });
  }

  #elsewhere(needed: number, problem: string): CutoverError {
    const { database } = this.#session;
    const place = placeName(this.#shard);
    return new CutoverError('other_shard', { database, place, needed: placeName(needed), problem });
  }
}

const MIXED = 'it may change the session in a way that the other servers of the transaction would not know';
const READS = { writes: false, over: false, cursor: false, mixed: false };
const WRITES = { ...READS, writes: true };
