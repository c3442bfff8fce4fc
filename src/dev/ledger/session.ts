/** One task: one connection of the ledger application, which notices when an answer may have been lost. */
import { Socket } from 'node:net';
import pg from 'pg';
import type { Endpoint } from '../../postgres/endpoint.js';

/** How a statement is sent: a Query message, Parse/Bind/Execute without a name, or a named prepared statement. */
export type Style = 'simple' | 'extended' | 'prepared';

export interface Statement {
  readonly text: string;
  readonly values: readonly (string | number)[];
  /** the command tag a success must carry: a COMMIT answered with ROLLBACK did not commit */
  readonly command: 'BEGIN' | 'COMMIT' | 'INSERT' | 'UPDATE' | 'SELECT';
  /** rows a success must have changed or returned */
  readonly rowCount?: number;
}

const CONNECT_TIMEOUT_MS = 10_000;

/** Classes and codes after which nobody can say whether the statement took effect (PostgreSQL documentation, appendix A). */
const OUTCOME_UNKNOWN = /^(08|57P|40003)/;

export class Session {
  readonly #client: pg.Client;
  readonly #socket: Socket;
  #broken = false;

  private constructor(client: pg.Client, socket: Socket) {
    this.#client = client;
    this.#socket = socket;
    const broke = (): void => {
      this.#broken = true;
    };
    client.on('error', broke);
    client.on('end', broke);
  }

  static async connect(endpoint: Endpoint, applicationName: string): Promise<Session> {
    const socket = new Socket();
    const client = new pg.Client({
      ...endpoint,
      application_name: applicationName,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      stream: () => socket,
    });
    const session = new Session(client, socket);
    try {
      await client.connect();
    } catch (error) {
      socket.destroy();
      throw error;
    }
    return session;
  }

  get broken(): boolean {
    return this.#broken;
  }

  /**
   * Sends one statement and gives the rows of a success of the expected kind.
   *
   * @throws Error on a refusal, a lost connection, or a success that is not the expected one
   */
  async send(statement: Statement, style: Style): Promise<readonly Record<string, unknown>[]> {
    const result = await this.#query(statement, style);
    const { command, rowCount } = statement;
    if (result.command !== command) throw new Error(`${command} was answered with ${result.command}`);
    if (rowCount !== undefined && result.rowCount !== rowCount) {
      throw new Error(`${command} met ${String(result.rowCount)} rows instead of ${rowCount.toString()}`);
    }
    return result.rows;
  }

  /** Ends an open transaction, if there is one to end. */
  async rollback(): Promise<void> {
    if (this.#broken) return;
    await this.#client.query('ROLLBACK').catch(() => undefined);
  }

  async end(): Promise<void> {
    await this.#client.end().catch(() => undefined);
  }

  /** Drops the connection without a word, as a crash would; whoever waits for an answer gets an error. */
  destroy(): void {
    this.#broken = true;
    this.#socket.destroy();
  }

  #query(statement: Statement, style: Style): Promise<pg.QueryResult<Record<string, unknown>>> {
    const { text } = statement;
    const values = [...statement.values];
    switch (style) {
      case 'simple':
        return this.#client.query(withLiterals(text, values));
      case 'extended': {
        // Without it a statement that has no parameters, as COMMIT, goes out in the simple protocol; the types lack it.
        const query: pg.QueryConfig & { readonly queryMode: 'extended' } = { text, values, queryMode: 'extended' };
        return this.#client.query(query);
      }
      case 'prepared':
        return this.#client.query({ text, values, name: nameOf(text) });
    }
  }
}

/** The SQLSTATE of an error, when a server answered one. */
export function sqlstateOf(error: unknown): string | undefined {
  return error instanceof pg.DatabaseError ? error.code : undefined;
}

/** True when a statement that failed like this may have taken effect all the same. */
export function mayHaveTakenEffect(error: unknown, session: Session): boolean {
  const sqlstate = sqlstateOf(error);
  return sqlstate === undefined ? session.broken : OUTCOME_UNKNOWN.test(sqlstate);
}

function withLiterals(text: string, values: readonly (string | number)[]): string {
  return text.replace(/\$(\d+)/g, (_, position: string) => pg.escapeLiteral(String(values[Number(position) - 1])));
}

const names = new Map<string, string>();

/** One name for each text; the texts are few and fixed. */
function nameOf(text: string): string {
  const known = names.get(text) ?? `ledger_${(names.size + 1).toString()}`;
  names.set(text, known);
  return known;
}
