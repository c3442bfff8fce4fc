/** One task: keep the engine's connections warm between the steps, so that nothing inside a pause has to connect. */
import { connect, unansweredMs, type Connection, type ConnectOptions } from './connection.js';
import { addressOf, tlsRuleOf, type Endpoint } from './endpoint.js';

/** Connections by purpose: two purposes never wait for each other's statements. */
export type Purpose = 'record' | 'seal' | 'parity' | 'sequences' | 'watch' | 'pause' | 'renew';

interface Entry {
  readonly opening: Promise<Connection>;
  readonly begunAtMs: number;
  /** how the server was verified */
  readonly rule: string;
  /** null: it is not open yet */
  connection: Connection | null;
  broken: boolean;
}

/** A small cache, bounded by purposes × databases of one migration at a time; `close` ends it. */
export class Connections {
  readonly #entries = new Map<string, Entry>();
  readonly #options: ConnectOptions;

  constructor(options: ConnectOptions = {}) {
    this.#options = options;
  }

  /** A live connection for `purpose`; connects when there is none or the last one broke. */
  get(endpoint: Endpoint, purpose: Purpose): Promise<Connection> {
    const key = `${addressOf(endpoint)} ${endpoint.user} ${purpose}`;
    const present = this.#entries.get(key);
    const rule = tlsRuleOf(endpoint);
    if (present && !present.broken) {
      if (present.rule === rule) return present.opening;
      void endQuietly(present);
    }
    const begunAtMs = performance.now();
    const opening = connect(endpoint, this.#options);
    const entry: Entry = { opening, begunAtMs, rule, connection: null, broken: false };
    this.#entries.set(key, entry);
    entry.opening.then(
      (connection) => {
        entry.connection = connection;
        const broke = (): void => {
          entry.broken = true;
        };
        connection.on('error', broke);
        connection.on('end', broke);
      },
      () => {
        entry.broken = true;
      },
    );
    return entry.opening;
  }

  /** For how long the longest wait for an answer of this server, or for a connection to it, has lasted; 0 when nothing waits. */
  unansweredMs(endpoint: Endpoint): number {
    const prefix = `${addressOf(endpoint)} ${endpoint.user} `;
    const live = [...this.#entries].filter(([key, { broken }]) => key.startsWith(prefix) && !broken);
    return live.reduce((longest, [, { connection, begunAtMs }]) => {
      return Math.max(longest, connection === null ? performance.now() - begunAtMs : unansweredMs(connection));
    }, 0);
  }

  /** Gives up a connection whose state is unknown, for instance after a client-side timeout. */
  async discard(endpoint: Endpoint, purpose: Purpose): Promise<void> {
    const key = `${addressOf(endpoint)} ${endpoint.user} ${purpose}`;
    const entry = this.#entries.get(key);
    this.#entries.delete(key);
    await endQuietly(entry);
  }

  async close(): Promise<void> {
    const entries = [...this.#entries.values()];
    this.#entries.clear();
    await Promise.all(entries.map(endQuietly));
  }
}

async function endQuietly(entry: Entry | undefined): Promise<void> {
  if (!entry) return;
  try {
    await (await entry.opening).end();
  } catch {
    // It never opened, or broke: there is nothing left to end.
  }
}
