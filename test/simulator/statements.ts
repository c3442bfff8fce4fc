/** One task: answer the statements the product's code sends: the record's functions, and what it only looks at. */
import { invariant } from '../../src/errors/invariant.js';
import { RECORD_VERSION } from '../../src/postgres/record-schema.js';
import { SEQUENCE_GAP } from '../../src/postgres/sequences.js';
import type { Database, Work } from './database.js';
import { markerKey, RECORD_FUNCTIONS, type RecordFunction } from './record-functions.js';
import type { Actor } from './scheduler.js';
import type { Stream } from './stream.js';

export type Row = Readonly<Record<string, unknown>>;
export type Reply = (error: Error | null, rows: readonly Row[]) => void;
type Answer = (database: Database, values: readonly unknown[], streams: readonly Stream[]) => readonly Row[];

const LSN_DIGITS = 2;
/** The statement by which the way to a server is measured. */
const ROUND_TRIP = 'SELECT';

function parity(database: Database, values: readonly unknown[], streams: readonly Stream[]): readonly Row[] {
  const [name, cluster, , epoch, nonce, lsn] = values as [string, string, number, number, string, string];
  const stream = streams.find((s) => s.name === name && s.to === database);
  const wanted = Number.parseInt(lsn.slice(LSN_DIGITS), 16);
  return [
    {
      marker: database.markers.has(markerKey(cluster, epoch, nonce, 'seal')),
      flushed: stream !== undefined && stream.progressLsn >= wanted,
      ...{ ready: 2, unready: 0, problems: 0, unsynchronised: 0 },
    },
  ];
}

function canary(database: Database, values: readonly unknown[]): readonly Row[] {
  const [cluster, , epoch, nonce] = values as [string, number, number, string];
  return database.markers.has(markerKey(cluster, epoch, nonce, 'canary')) ? [{}] : [];
}

function record(database: Database): readonly Row[] {
  const { epoch, state, nonce } = database.fence;
  const decisions = [...database.decisions.values()].sort((a, b) => b.epoch - a.epoch).map((d) => ({ ...d }));
  return [
    {
      version: RECORD_VERSION,
      state: { identity: database.identity(), fence: { epoch, state, nonce, up: database.up }, decisions },
    },
  ];
}

function sequences(database: Database): readonly Row[] {
  const used = database.sequence > 0;
  const values = used ? { 'public.writes_key_seq': (database.sequence + SEQUENCE_GAP).toString() } : {};
  return [{ values, withheld: [] }];
}

/** The row of the migration, by who its sides were when it began. */
function migration(_: Database, __: readonly unknown[], [forward]: readonly Stream[]): readonly Row[] {
  invariant(forward, 'a stream leads forward');
  return [{ source: forward.from.identity(), destination: forward.to.identity() }];
}

function slot(database: Database, values: readonly unknown[], streams: readonly Stream[]): readonly Row[] {
  const stream = streams.find((s) => s.name === values[0] && s.from === database);
  if (!stream) return [];
  const lagBytes = database.lsn - stream.progressLsn;
  return [{ name: stream.name, active: !stream.broken, lagBytes, retainedBytes: lagBytes, lost: stream.broken }];
}

/** Transactions that have run longer than the drain may take. */
function longRunning(database: Database, values: readonly unknown[]): readonly Row[] {
  const [drainMs] = values as [number];
  return [...database.open]
    .filter(({ beganAt }) => database.scheduler.now - beganAt > drainMs)
    .map(({ client }) => ({ holder: `${client.name} has run a transaction for long` }));
}

/** What is asked of schemas, tables and subscriptions ahead of the pause: nothing about them changes here. */
const QUIET: readonly (readonly [string, Answer])[] = [
  ['UPDATE cutover.fence SET peer_address', () => []],
  ['SET plan_cache_mode', () => []],
  ['DO $warm_up$', () => []],
  ['SET deadlock_timeout', () => []],
  ["has_sequence_privilege(s.seqrelid, 'USAGE, SELECT')", () => []],
  ['SELECT cutover.fence_gap($1) AS gap', () => [{ gap: null }]],
  ['SELECT cutover.table_gap($1) AS gap', () => [{ gap: null }]],
  ['SELECT cutover.destination_gap($1, $2) AS gap', () => [{ gap: null }]],
  ['SELECT cutover.fenced_tables(), ', () => [{}]],
  ["WHERE t.tgname = 'cutover_fence_write'", () => [{}]],
  ['SELECT cutover.tables_changed(', () => [{ changed: false }]],
  ['SELECT cutover.remember_catalogue(', () => [{}]],
  ['IS NOT NULL AS known', () => [{ known: true }]],
  ['IS NOT NULL AS counted', () => [{ counted: true, readable: true }]],
  ['AS "steadySeconds"', () => []],
  ["counter.key ~ '(_error_count$|^confl_)'", () => [{ problems: 0 }]],
  ['LEFT JOIN pg_stat_progress_copy p', () => []],
  ['AS whole FROM pg_publication', () => [{ whole: true }]],
  ["type = 'SchemaChanged'", () => []],
  ['AS fingerprint', () => [{ fingerprint: '1/1' }]],
];

/** A part of the text by which each statement is known, and what it answers at one instant. */
const ANSWERS: readonly (readonly [string, Answer])[] = [
  ['SELECT EXISTS (SELECT FROM cutover.marker', parity],
  ["nonce = $4 AND kind = 'canary'", canary],
  ["to_regclass('cutover.decision') IS NOT NULL", () => [{ present: true }]],
  ['SELECT max(version) AS version FROM cutover.layout', () => [{ version: RECORD_VERSION }]],
  ['FROM cutover.decision d), ', record],
  ['FROM pg_control_system()) AS "systemIdentifier"', (database) => [database.identity()]],
  ['pg_sequence_last_value(s.seqrelid) AS last', sequences],
  ['FROM pg_stat_replication r', (database) => [{ target: database.lsnText, behind: [] }]],
  ['SELECT cutover.columns_changed(', () => [{ changed: false }]],
  ['FROM pg_locks l', () => []],
  ["SELECT 'lease' AS renewing", () => [{ renewing: 'lease' }]],
  ['SELECT cutover.note(', () => [{}]],
  ["to_regclass('cutover.migration') IS NOT NULL", () => [{ present: true }]],
  ['FROM cutover.migration WHERE active', migration],
  ['AS "lagBytes"', slot],
  ['has run a transaction for', longRunning],
  ...QUIET,
];

/** What a database answers; a planted fault replaces functions of the record. */
export class Statements {
  readonly #functions: Readonly<Record<string, RecordFunction>>;
  readonly #streams: readonly Stream[];
  readonly #known = new Map<string, Answer>();

  constructor(streams: readonly Stream[], planted: Readonly<Record<string, RecordFunction>> = {}) {
    this.#streams = streams;
    this.#functions = { ...RECORD_FUNCTIONS, ...planted };
  }

  run(database: Database, client: Actor, text: string, values: readonly unknown[], reply: Reply): void {
    const called = /^\s*SELECT (cutover\.\w+)\(.*\) AS answer$/.exec(text)?.[1];
    if (called !== undefined) {
      const work = this.#functions[called];
      invariant(work, `the simulator has no function ${called}`);
      database.transact<Record<string, unknown>>(
        client,
        (transaction): Work<Record<string, unknown>> => work(transaction, values),
        (error, answer) => {
          reply(error, answer ? [{ answer }] : []);
        },
      );
      return;
    }
    reply(null, this.#answerTo(text)(database, values, this.#streams));
  }

  #answerTo(text: string): Answer {
    const known = this.#known.get(text);
    if (known) return known;
    const answer =
      text === ROUND_TRIP ? (): readonly Row[] => [{}] : ANSWERS.find(([part]) => text.includes(part))?.[1];
    invariant(
      answer,
      `the simulator has no answer to this statement; give it one in test/simulator/statements.ts: ${text.slice(0, 300)}`,
    );
    this.#known.set(text, answer);
    return answer;
  }
}
