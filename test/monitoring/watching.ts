/** One task: start the program for one database with its monitoring, for tests, and ask it as a load balancer and a scraper do. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { onTestFinished } from 'vitest';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { LOOPBACK } from '../../src/dev/ports.js';
import { serve, type Served } from '../../src/serve.js';
import type { Logger } from '../../src/proxy/logger.js';
import { readExposition, type ReadFamily } from './exposition.js';

export const PASSWORD = 'a secret of the client';
export const ADMIN_PASSWORD = 'a secret of the admin';
/** Whoever names his users so must not break the text. */
export const ODD_USER = 'o"d\\d\nuser';

export interface LogLine {
  readonly level: string;
  readonly message: string;
  readonly [field: string]: unknown;
}

export interface Watched {
  readonly served: Served;
  readonly lines: readonly LogLine[];
  readonly client: (options?: pg.ClientConfig) => Promise<pg.Client>;
  readonly admin: (command: string) => Promise<void>;
  /** writes pgdog.toml anew, with these keys in [general] */
  readonly rewrite: (general: string) => void;
}

const quoted = JSON.stringify;

/** Serves `prod` on the cluster, reached at `port`; ends with the test. */
export async function watched(cluster: Cluster, general: string, port = cluster.port): Promise<Watched> {
  const directory = mkdtempSync(join(tmpdir(), 'cutover-monitoring-'));
  const files = { config: join(directory, 'pgdog.toml'), users: join(directory, 'users.toml') };
  const rewrite = (keys: string): void => {
    writeFileSync(files.config, configText(port, keys));
  };
  rewrite(general);
  const row = (name: string): string =>
    `[[users]]\nname = ${quoted(name)}\ndatabase = "prod"\npassword = ${quoted(PASSWORD)}\nserver_user = "postgres"\n` +
    `server_password = ${quoted(cluster.password)}\n`;
  writeFileSync(files.users, `${row('app')}${row(ODD_USER)}`);
  const { lines, logger } = recorder();
  const served = await serve({ files, worker: false, logger });
  onTestFinished(async () => {
    await served.close(0);
    rmSync(directory, { recursive: true, force: true });
  });
  const client = async (options: pg.ClientConfig = {}): Promise<pg.Client> => {
    const made = new pg.Client({ ...served.address, database: 'prod', user: 'app', password: PASSWORD, ...options });
    made.on('error', () => undefined);
    await made.connect();
    return made;
  };
  const admin = async (command: string): Promise<void> => {
    const connection = await client({ database: 'admin', user: 'admin', password: ADMIN_PASSWORD });
    await connection.query(command).finally(() => connection.end());
  };
  return { served, lines, client, admin, rewrite };
}

function configText(port: number, general: string): string {
  return `[general]
host = "${LOOPBACK}"
port = 0
${general}

[admin]
password = "${ADMIN_PASSWORD}"

[[databases]]
name = "prod"
host = "${LOOPBACK}"
port = ${port.toString()}
database_name = "postgres"
`;
}

/** A log that is kept. */
export function recorder(): { readonly lines: LogLine[]; readonly logger: Logger } {
  const lines: LogLine[] = [];
  const at =
    (level: string) =>
    (fields: object, message: string): void => {
      lines.push({ ...fields, level, message });
    };
  return { lines, logger: { info: at('info'), warn: at('warn'), error: at('error') } };
}

export interface HttpAnswer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

export function get(port: number | null, path: string, method = 'GET'): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: LOOPBACK, port, path, method, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => (body += chunk));
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, type: response.headers['content-type'] ?? '', body });
      });
    });
    asked.on('error', reject);
    asked.end();
  });
}

/** What /readyz says: its status and the reasons. */
export async function readiness(port: number | null): Promise<{ readonly status: number; readonly reasons: string[] }> {
  const { status, body } = await get(port, '/readyz');
  return { status, reasons: (JSON.parse(body) as { reasons: string[] }).reasons };
}

export async function scrape(port: number | null): Promise<ReadonlyMap<string, ReadFamily>> {
  return readExposition((await get(port, '/metrics')).body);
}
