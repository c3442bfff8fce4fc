/** One task: make the pools of one database ready for the load of another, before the load comes. */
import { closeStatement, parse, readParseText, SYNC } from '../wire/frontend.js';
import { Errand } from './errand.js';
import type { Pool } from './pool.js';
import { REPLY } from './reply-queue.js';
import type { Routes } from './routes.js';
import type { ServerConnection } from './server-connection.js';
import type { Statement } from './statement-cache.js';

/**
 * Opens as many connections of `database` as `like` has, user by user and shard by shard, and prepares on them what servers of `like` have
 * prepared; a shard that `like` does not have is taken to be used as its shard 0 is. Best effort: what fails is left to whoever needs it.
 *
 * @param deadlineMs bound of the whole
 * @param beside what else has to be ready, under way already
 */
export async function warmUp(
  routes: Routes,
  database: string,
  like: string,
  deadlineMs: number,
  beside: readonly Promise<void>[],
): Promise<void> {
  const sources = routes.ofDatabase(like);
  const work = [...routes.ofDatabase(database)].map(async ([key, { pool }]) => {
    const [user] = JSON.parse(key) as [string, number];
    const model = (sources.get(key) ?? sources.get(JSON.stringify([user, 0])))?.pool;
    if (model === undefined || model === pool) return;
    await pool.fill(model.serverCount);
    await prepareOn(pool, hotStatements(model));
  });
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, deadlineMs);
  });
  await Promise.race([Promise.allSettled([...work, ...beside]), deadline]);
  clearTimeout(timer);
}

/** The texts that clients of one user have prepared on servers of a database, most used first. */
export function hotTexts(routes: Routes, user: string, database: string): readonly string[] {
  const pool = routes.poolOf(user, database);
  return pool === null ? [] : hotStatements(pool).map(({ body }) => readParseText(body, 0, body.length));
}

/** The statements servers of this pool have prepared, most used first. */
function hotStatements(pool: Pool): readonly Statement[] {
  const all = new Set([...pool.servers].flatMap((server) => [...server.statements.all]));
  const { preparedStatementsLimit } = pool.options;
  return [...all].sort((left, right) => right.uses - left.uses).slice(0, preparedStatementsLimit);
}

async function prepareOn(pool: Pool, statements: readonly Statement[]): Promise<void> {
  await Promise.all(pool.borrowIdle().map((server) => prepareAll(pool, server, statements)));
}

/** Prepares what is missing on one server; each statement by itself, so that one that fails leaves the others alone. */
function prepareAll(pool: Pool, server: ServerConnection, statements: readonly Statement[]): Promise<void> {
  const room = Math.max(0, pool.options.preparedStatementsLimit - server.statements.count);
  const missing = statements.filter((statement) => !server.statements.has(statement)).slice(0, room);
  if (missing.length === 0) {
    pool.giveBack(server, true);
    return Promise.resolve();
  }
  return new Promise((resolve) => {
    server.owner = new Warming(() => {
      pool.giveBack(server, true);
      resolve();
    }, resolve);
    const messages: Buffer[] = [];
    for (const statement of missing) {
      // Under other settings it may have been prepared there before.
      const inTheWay = server.statements.inTheWayOf(statement);
      if (inTheWay !== null) {
        server.replies.push(REPLY.injectedClose, server.statements.closed(inTheWay));
        messages.push(closeStatement(inTheWay.name));
      }
      server.replies.push(REPLY.injectedParse, server.statements.added(statement));
      server.replies.push(REPLY.sync);
      messages.push(parse(statement.name, statement.body), SYNC);
    }
    server.send(Buffer.concat(messages));
  });
}

/** Owns a server while its statements are prepared; all replies are for nobody. */
class Warming extends Errand {
  readonly #settled: () => void;

  constructor(settled: () => void, lost: () => void) {
    super(lost);
    this.#settled = settled;
  }

  override settled(): void {
    this.#settled();
  }
}
