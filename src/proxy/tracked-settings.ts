/**
 * One task: follow the settings of one session through transactions, so that it finds them on whichever server it gets.
 *
 * SET and RESET count when their transaction commits. Parameters a server reports (ParameterStatus) are followed
 * as well, so set_config() of those is not lost. Not followed: set_config() of a parameter that is not reported.
 */
import { parameterStatus } from '../wire/backend.js';
import { STATUS } from '../wire/codes.js';
import type { BatchRecord } from './batch-record.js';
import { changesInBatch } from './batch-settings.js';
import type { ServerConnection } from './server-connection.js';
import { SessionSettings, setToValue, type SettingChange } from './settings.js';
import { SESSION_TAG } from './session-tags.js';

/** Reported parameters that a session can set (PostgreSQL documentation, 54.2.7). */
const SETTABLE = new Set([
  'application_name',
  'client_encoding',
  'DateStyle',
  'IntervalStyle',
  'TimeZone',
  'default_transaction_read_only',
  'scram_iterations',
  'search_path',
  'standard_conforming_strings',
]);

const NO_NEWS: readonly Buffer[] = [];

export class TrackedSettings {
  current: SessionSettings;
  /** whether texts of this session are in UTF-8 */
  utf8 = true;
  readonly #initial: SessionSettings;
  /** what the client was told by ParameterStatus at its login, which others were told too */
  readonly #toldFirst: ReadonlyMap<string, string>;
  /** and later; null: nothing yet */
  #toldSince: Map<string, string> | null = null;
  #toldKey = '';
  /** changes of the open transaction */
  #pending: SettingChange[] = [];
  /** a part of the open transaction was rolled back, perhaps with changes in it */
  #uncertain = false;

  constructor(initial: SessionSettings, told: ReadonlyMap<string, string>) {
    this.current = initial;
    this.#initial = initial;
    this.#toldFirst = told;
    this.#noteEncoding();
  }

  get applicationName(): string {
    return this.#told('application_name') ?? '';
  }

  #told(name: string): string | undefined {
    return this.#toldSince?.get(name) ?? this.#toldFirst.get(name);
  }

  #tell(name: string, value: string): void {
    (this.#toldSince ??= new Map()).set(name, value);
  }

  /** ParameterStatus messages for what this server reports and the client does not know; empty when it knows all. */
  newsFrom(server: ServerConnection): readonly Buffer[] {
    if (this.#toldKey === server.parametersKey) return NO_NEWS;
    const news: Buffer[] = [];
    for (const [name, value] of server.parameters) {
      // A session that writes is on no standby, though one answers some of its reads.
      if (this.#told(name) === value || name === 'in_hot_standby') continue;
      this.#tell(name, value);
      news.push(parameterStatus(name, value));
    }
    this.#toldKey = server.parametersKey;
    this.#noteEncoding();
    return news;
  }

  /** At each ReadyForQuery behind a command that matters, or an error. */
  noteCommands(
    tags: number,
    failed: boolean,
    server: ServerConnection,
    record: BatchRecord,
    preparedText: (name: string) => string | undefined,
  ): void {
    const rolledBack = (tags & SESSION_TAG.rollback) !== 0 || failed;
    const idle = server.transactionStatus === STATUS.idle;
    if ((tags & SESSION_TAG.set) !== 0) {
      // SET LOCAL too. Known again when the transaction ends.
      server.statements.readBy(null);
      const changes = record.complete ? changesInBatch(record.bytes(), preparedText) : null;
      if (changes === null || failed) this.#uncertain = true;
      if (changes !== null && !failed) this.#pending.push(...changes);
    }
    if (rolledBack && idle) this.#pending = [];
    else if (rolledBack && this.#pending.length > 0) this.#uncertain = true;
  }

  /** When the server is idle again: what was changed and committed is now part of the session, and of the server. */
  commit(server: ServerConnection): void {
    if (this.#pending.length === 0 && server.changedParameters.size === 0 && !this.#uncertain) {
      server.statements.readBy(server.settings?.meaning ?? null);
      return;
    }
    const changes = [...this.#pending, ...this.#reported(server)];
    const { settings } = server;
    const known = settings !== null && !this.#uncertain;
    if (changes.length > 0) this.current = this.current.with(changes, this.#initial);
    server.settings = known ? settings.with(changes, SessionSettings.NONE) : null;
    for (const [name, value] of server.changedParameters) this.#tell(name, value);
    this.#toldKey = server.parametersKey;
    this.#noteEncoding();
    server.changedParameters.clear();
    this.#pending = [];
    this.#uncertain = false;
  }

  /**
   * A transaction on several servers has ended: what it changed is part of the session when it was committed. What each of the servers has
   * is not known then, unless nothing was changed.
   */
  endedOn(servers: readonly ServerConnection[], committed: boolean): void {
    const changed = this.#pending.length > 0 || this.#uncertain;
    if (committed && this.#pending.length > 0) this.current = this.current.with(this.#pending, this.#initial);
    this.#pending = [];
    this.#uncertain = false;
    for (const server of servers) {
      if (changed || server.changedParameters.size > 0) server.settings = null;
      server.changedParameters.clear();
    }
  }

  #noteEncoding(): void {
    this.utf8 = /^utf-?8$/i.test(this.#told('client_encoding') ?? 'UTF8');
  }

  /** Changes the server reported that no SET or RESET of this transaction explains. */
  #reported(server: ServerConnection): readonly SettingChange[] {
    if (this.#pending.some((change) => change.kind === 'resetAll')) return [];
    const explained = new Set(this.#pending.map((change) => (change.kind === 'resetAll' ? '' : change.name)));
    return [...server.changedParameters]
      .filter(([name, value]) => SETTABLE.has(name) && this.#told(name) !== value && !explained.has(name.toLowerCase()))
      .map(([name, value]) => setToValue(name, value));
  }
}
