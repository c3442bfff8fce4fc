/**
 * One task: tell on which shard what a session sends must run, and hold each transaction to one shard.
 *
 * Outside a transaction each batch goes where its statements belong. BEGIN runs where the session was last. As long as the
 * transaction has done nothing but begin (BEGIN, SET, SAVEPOINT) and read what every shard has, it can be begun anew on another shard
 * (`opening`); from its first other statement on it stays where it is, and what belongs elsewhere is refused.
 */
import { CutoverError } from '../errors/errors.js';
import { commentHint } from '../sharding/router-hints.js';
import { REFUSAL_TEXTS } from '../sharding/router-refusals.js';
import type { StatementParameters } from '../sharding/router-parameters.js';
import { commonRoute, type Route } from '../sharding/router.js';
import type { SessionHint } from '../sharding/statement-verdict.js';
import { STATUS } from '../wire/codes.js';
import type { FrameScanner } from '../wire/frames.js';
import { TOO_LONG_BYTES } from './bound-statement.js';
import type { ClientStatements } from './client-statements.js';
import { copyPlanOf } from './copy-plan.js';
import type { Screen } from './forwarder.js';
import { raising } from './raising.js';
import { COORDINATOR } from './routes.js';
import { searchPathOf, type DefaultPath } from './search-path.js';
import { hintOf } from './session-hint.js';
import { effectOf, mayChangePath } from './session-statement.js';
import type { ShardRouters, UserRouter } from './shard-routers.js';
import { statementsAhead, type Rest } from './statements-ahead.js';
import type { CopyPlan } from './shard-copy.js';
import type { WritePlan } from './shard-write.js';
import type { TrackedSettings } from './tracked-settings.js';
import { partMessages, readWriteBatch } from './write-batch.js';

/** Where a batch goes; `more`: the rest of it must come first; `read`: the router must be read (again) first. */
export type Place =
  | { readonly kind: 'shard'; readonly shard: number }
  /** one statement that writes on several shards */
  | { readonly kind: 'several'; readonly plan: WritePlan | CopyPlan }
  | { readonly kind: 'refused'; readonly error: CutoverError }
  | { readonly kind: 'more' }
  | { readonly kind: 'read' };

/** A transaction that has said more than this stays where it is. */
const OPENING_MAX = 32;
const OPENING_CHARACTERS_MAX = 8_192;
/** Bytes of a batch that are kept while nothing in it has told where it belongs. */
const UNREAD_BYTES_MAX = 65_536;

/** What one statement needs: a shard or the coordinator, any shard, to be refused; `again`: see session-statement.ts. */
type Need =
  /** `everywhere`: it only reads, and the coordinator answers it as well */
  | { readonly kind: 'shard'; readonly shard: number; readonly everywhere: boolean }
  | { readonly kind: 'any' }
  | { readonly kind: 'several'; readonly text: string; readonly write: SeveralRoute }
  | { readonly kind: 'again'; readonly hints: readonly SessionHint[] }
  | { readonly kind: 'refused'; readonly reason: string; readonly unknown: boolean };

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
  #router: UserRouter | null = null;
  /** what the open transaction has said; null: it has done something, and stays */
  #opening: string[] | null = [];
  #inTransaction = false;
  /** names may mean something else than the settings say, until the transaction ends */
  #pathUncertain = false;
  /** hints of the open transaction, newest last */
  #hints: SessionHint[] = [];
  /** the batch ahead begins with EXPLAIN, whose reader wants to know where it runs */
  #explained = false;

  /** @param refuse asked for every change of the schema: why it must not be made now, or null */
  constructor(
    session: Session,
    routers: ShardRouters,
    settings: TrackedSettings,
    statements: ClientStatements,
    refuse: (text: string) => CutoverError | null,
  ) {
    this.#session = session;
    this.#refuse = refuse;
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
    if (need.kind !== 'refused')
      return { kind: 'shard', shard: this.#go(need.kind === 'shard' ? need.shard : this.#home) };
    if (need.unknown && this.#routers.mayBeOutdated(router)) return { kind: 'read' };
    return { kind: 'refused', error: this.#refusal(need.reason) };
  }

  /**
   * The shard where the open transaction is to begin anew before the next batch; `stay`: it is at its place; `more`: the batch has to
   * come first.
   */
  move(scanner: FrameScanner): { readonly shard: number } | 'stay' | 'more' {
    if (!this.#inTransaction || this.#opening === null) return 'stay';
    const need = this.#needAhead(scanner);
    if (need === null) return 'more';
    if (need.kind !== 'shard' || need.shard === this.#shard) return 'stay';
    return { shard: this.#go(need.shard) };
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
    if (write.kind === 'copy') {
      const plan = copyPlanOf(write.copy, batch, this.#allShards(), this.#settings.utf8);
      return typeof plan === 'string' ? refusedAs(plan) : { kind: 'several', plan };
    }
    const schema = write.kind === 'every' && write.ddl;
    const forbidden = schema ? this.#refuse(text) : null;
    if (forbidden !== null) return { kind: 'refused', error: forbidden };
    if (write.kind !== 'rows') {
      const shards = write.kind === 'several' ? write.shards : this.#allShards();
      const messages = partMessages(batch, null);
      const parts = shards.map((shard) => ({ shard, messages, rows: null }));
      return { kind: 'several', plan: { kind: 'write', batch, parts, alike: write.kind === 'every', schema } };
    }
    const split = this.#settings.utf8 ? (this.#router?.router.split(text, write.parts) ?? null) : null;
    if (split === null) return refusedAs('its rows belong to several shards and cannot be told apart in its text');
    const parts = split.map((part) => ({ shard: part.shard, messages: partMessages(batch, part), rows: part.rows }));
    return {
      kind: 'several',
      plan: { kind: 'write', batch, parts: parts.sort((a, b) => a.shard - b.shard), alike: false, schema },
    };
  }

  #allShards(): readonly number[] {
    return Array.from({ length: this.#router?.shards ?? 0 }, (_, shard) => shard);
  }

  #go(shard: number): number {
    this.#shard = shard;
    if (shard !== COORDINATOR) this.#home = shard;
    return shard;
  }

  /** What begins the open transaction on another shard. */
  get opening(): string {
    // A comment may go to the end of its line.
    return (this.#opening ?? []).join('\n;');
  }

  /** What to tell the client before the batch ahead is sent; null for most. Told once. */
  takeNotice(): string | null {
    if (!this.#explained) return null;
    this.#explained = false;
    return `runs on ${placeName(this.#shard)} of "${this.#session.database}"`;
  }

  /** The server is idle, in a transaction, or in a failed one. */
  settled(status: number): void {
    this.#inTransaction = status === STATUS.inTransaction;
    if (status !== STATUS.idle) return;
    this.#opening = [];
    this.#pathUncertain = false;
    this.#hints = [];
  }

  instead(text: string, parameters: StatementParameters, portal: string): string | null {
    const need = this.#needOf(text, parameters);
    if (need.kind === 'refused') return raising(this.#refusal(need.reason));
    if (need.kind === 'several') return raising(this.#refusal(NOT_ALONE));
    const problem = this.#shard === COORDINATOR && need.kind !== 'again' ? this.#coordinatorProblem(text) : null;
    if (problem !== null) return raising(this.#refusal(problem));
    if (need.kind === 'shard' && need.shard !== this.#shard && !(need.everywhere && this.#shard === COORDINATOR))
      return raising(this.#elsewhere(need.shard));
    this.#note(need, text, portal);
    return null;
  }

  /** @returns null when more must come before anything can be said: the scanner waits for it */
  #needAhead(scanner: FrameScanner): Need | null {
    if (scanner.awaitsRest) return null;
    const ahead = statementsAhead(scanner.buffer.subarray(scanner.position), this.#statements);
    let first = true;
    for (let next = ahead.next(); ; next = ahead.next()) {
      if (next.done === true) return this.#needOfRest(scanner, next.value);
      if (first) this.#explained = EXPLAIN.test(next.value.text);
      const need = this.#needOf(next.value.text, next.value.parameters);
      // What is refused behind another statement is refused when it is its turn.
      if (need.kind === 'shard' || (first && (need.kind === 'refused' || need.kind === 'several'))) return need;
      first = false;
    }
  }

  /** A batch that is long without running anything is looked at as it passes. */
  #needOfRest(scanner: FrameScanner, rest: Rest | null): Need | null {
    if (rest === null || (!rest.cut && scanner.unreadBytes > UNREAD_BYTES_MAX)) return { kind: 'any' };
    if (rest.neededBytes > TOO_LONG_BYTES) return refused(REFUSAL_TEXTS['too-long']);
    scanner.hold(rest.neededBytes);
    return null;
  }

  #needOf(text: string, parameters: StatementParameters): Need {
    const { router } = this.#router ?? {};
    if (router === undefined) return refused('its router is not read');
    const searchPath = this.#pathUncertain
      ? null
      : searchPathOf(this.#settings.current, this.#router?.defaults ?? NOWHERE);
    const hint = hintOf(this.#settings.current, this.#hints);
    const statements = router.route(text, {
      searchPath: searchPath ?? [],
      parameters: { ...parameters, utf8: this.#settings.utf8 },
      ...hint,
    });
    const forTables = statements.filter(({ route }) => route.kind !== 'session');
    if (forTables.length < statements.length && forTables.length > 0 && mayChangePath(text))
      return refused('it changes what names mean and uses tables in one text');
    const session = statements.flatMap(({ route, start, end }) =>
      route.kind === 'session' ? [needOfSession(route, text.slice(start, end))] : [],
    );
    if (forTables.length > 0) {
      const need = this.#needOfTables(commonRoute(forTables), text, hint.hint !== undefined);
      session.push(need.kind === 'several' && statements.length > 1 ? refused(NOT_ALONE) : need);
    }
    return session.reduce(both, { kind: 'again', hints: [] });
  }

  /** A hint asks for the rows of one shard, which the coordinator does not tell apart. */
  #needOfTables(route: Route, text: string, hinted: boolean): Need {
    const need = needOfRoute(route, text);
    if (need.kind !== 'shard') return need;
    const problem = need.shard === COORDINATOR ? this.#coordinatorProblem(text) : null;
    if (problem !== null) return refused(problem, route.kind === 'coordinator' && route.reason.startsWith(UNKNOWN));
    return { ...need, everywhere: need.everywhere && !hinted && commentHint(text) === null };
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
    if (need.kind !== 'again') {
      // What every shard answers alike, and nothing can come back to, need not be asked again elsewhere.
      if (need.kind !== 'any' || portal !== '' || !leavesNothing(text) || !this.#readsAnew()) this.#opening = null;
      return;
    }
    this.#hints.push(...need.hints);
    if (mayChangePath(text)) this.#pathUncertain = true;
    const opening = this.#opening;
    if (opening === null) return;
    opening.push(text.replace(/[;\s]+$/, ''));
    const characters = opening.reduce((sum, said) => sum + said.length, 0);
    if (opening.length > OPENING_MAX || characters > OPENING_CHARACTERS_MAX) this.#opening = null;
  }

  /** Each statement of the open transaction sees what is committed then, whatever the ones before it saw. */
  #readsAnew(): boolean {
    const said = this.#opening ?? [];
    const set = this.#settings.current.statements.get('default_transaction_isolation');
    if (set !== undefined || said.some((text) => /isolation/i.test(text))) return false;
    return this.#router?.defaults.isolation === 'read committed';
  }

  #refusal(reason: string): CutoverError {
    return new CutoverError('statement_not_routed', { database: this.#session.database, reason });
  }

  #elsewhere(needed: number): CutoverError {
    const { database } = this.#session;
    return new CutoverError('other_shard', { database, place: placeName(this.#shard), needed: placeName(needed) });
  }
}

const EXPLAIN = /^\s*explain\b/i;
const NOWHERE: DefaultPath = { path: '', role: '' };

function refused(reason: string, unknown = false): Need {
  return { kind: 'refused', reason, unknown };
}

/** What the statements of one text need together; those for tables have been combined before. */
function both(one: Need, other: Need): Need {
  if (one.kind === 'refused' || one.kind === 'shard') return other.kind === 'refused' ? other : one;
  if (other.kind !== 'again' || one.kind !== 'again') return other.kind === 'again' ? one : other;
  return { kind: 'again', hints: [...one.hints, ...other.hints] };
}

function needOfSession(route: Extract<Route, { kind: 'session' }>, text: string): Need {
  const effect = effectOf(route, text);
  if (effect === 'again') return { kind: 'again', hints: route.hint === null ? [] : [route.hint] };
  return effect === 'stays' ? { kind: 'any' } : refused(effect.refused);
}

type SeveralRoute = Extract<Route, { kind: 'several' | 'rows' | 'every' | 'copy' }>;

const NOT_ALONE =
  'it writes on several shards inside a transaction or beside other statements, which is not implemented; send it by itself';

function needOfRoute(route: Route, text: string): Need {
  switch (route.kind) {
    case 'shard':
      return { kind: 'shard', shard: route.shard, everywhere: !route.write };
    case 'any':
      return route.fixed ? { kind: 'shard', shard: 0, everywhere: false } : { kind: 'any' };
    case 'refused':
      return refused(REFUSAL_TEXTS[route.reason], route.reason.startsWith(UNKNOWN));
    case 'coordinator':
      return { kind: 'shard', shard: COORDINATOR, everywhere: true };
    case 'every':
      if (route.ddl && !route.transactional)
        return refused('it changes the schema and cannot run inside a transaction, so not on all shards or on none');
      return { kind: 'several', text, write: route };
    case 'several':
    case 'rows':
    case 'copy':
      return { kind: 'several', text, write: route };
    case 'moves-key':
      return refused('it moves rows from one shard to another, which is not implemented');
    case 'session':
      return { kind: 'any' };
  }
}

/** Reasons that another reading of the catalogue may remove. */
const UNKNOWN = 'unknown-';

/** No function, which may tell of the transaction it runs in or do something in it, and no cursor. */
function leavesNothing(text: string): boolean {
  return (
    /^\s*(?:select|show|table|values)\b/i.test(text) &&
    !/[(;]|\binto\b|\bcurrent_|\blocaltime/i.test(text.replace(/;\s*$/, ''))
  );
}

function placeName(shard: number): string {
  return shard === COORDINATOR ? 'the coordinator' : `shard ${shard.toString()}`;
}

/** Without a primary key a table can be read all the same; only GROUP BY of that key may name other columns beside it. */
function isMissed(text: string, object: string): boolean {
  return mentions(text, object) && (!object.startsWith('primary key of ') || /\bgroup\b/i.test(text));
}

/** Whether a text may name an object, as `view app.late` or `function app.total(integer)`, by its bare name. */
function mentions(text: string, object: string): boolean {
  const name = object.replace(/\(.*$/s, '').split(/[ .]/).at(-1) ?? '';
  return name === '' || text.toLowerCase().includes(name.replaceAll('"', '').toLowerCase());
}
