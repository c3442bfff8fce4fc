/** One task: no password leaves the files and the connections it belongs to: not into a log, a history, an event, a screen. */
import type { Client } from '@temporalio/client';
import { expect, it, onTestFinished, vi } from 'vitest';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { connect } from '../../src/postgres/connection.js';
import type { Logger } from '../../src/proxy/logger.js';
import { leaksIn, textsIn } from '../support/secrets.js';
import { Moving } from './moving.js';

const VIEWS = [
  ...['TASKS', 'REPLICATION_SLOTS', 'TABLE_COPIES', 'CUTOVERS', 'EVENTS', 'POOLS', 'CLIENTS', 'SERVERS', 'STATS'],
  ...['CONFIG', 'VERSION', 'LISTS', 'MAINTENANCE'],
];
const PROBE_SECRET = 'probe secret';

/** Everything the program says while the test runs, wherever it says it. */
function listen(): { readonly logger: Logger; readonly said: string[] } {
  const said: string[] = [];
  const line = (fields: object, message: string): void => {
    said.push(`${message} ${JSON.stringify(fields)}`);
  };
  for (const stream of [process.stdout, process.stderr]) {
    const spy = vi.spyOn(stream, 'write').mockImplementation((chunk) => said.push(String(chunk)) > 0);
    onTestFinished(() => {
      spy.mockRestore();
    });
  }
  return { logger: { info: line, warn: line, error: line }, said };
}

/** The histories of all workflows, every event with all its payloads. */
async function historiesOf(client: Client): Promise<readonly string[]> {
  const texts: string[] = [];
  for await (const { workflowId, runId } of client.workflow.list())
    texts.push(...textsIn(await client.workflow.getHandle(workflowId, runId).fetchHistory()));
  return texts;
}

/** The connection strings of the streams into `cluster`, which only a superuser there may read. */
async function connectionStrings(cluster: Cluster): Promise<readonly string[]> {
  const rows = await cluster.query<{ conninfo: string }>('app', 'SELECT subconninfo AS conninfo FROM pg_subscription');
  return rows.map(({ conninfo }) => conninfo);
}

async function passwordsOfStreams(moving: Moving): Promise<readonly string[]> {
  const { source, destination } = moving.system;
  const strings = [...(await connectionStrings(source)), ...(await connectionStrings(destination))];
  return strings.map((conninfo) => /password='([^']+)'/.exec(conninfo)?.[1] ?? 'a subscription without a password');
}

async function screens(moving: Moving): Promise<readonly string[]> {
  const texts: string[] = [];
  for (const view of VIEWS) texts.push(...textsIn(await moving.system.admin(`SHOW ${view}`)));
  return texts;
}

async function errorOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'no error',
    (error: unknown) => textsIn(error).join(' '),
  );
}

it('no password is said, shown, recorded or left behind', { timeout: 240_000 }, async () => {
  const { logger, said } = listen();
  // The most talkative servers there are: what the engine sends must not reach their logs either.
  const settings = { log_statement: 'all', log_min_duration_statement: '0', log_replication_commands: 'on' };
  const moving = await Moving.start({ source: 17, destination: 18, logger, settings });
  onTestFinished(() => moving.stop());
  const { system } = moving;
  const errors = [
    await errorOf(connect({ ...system.endpoint(), password: 'not the app secret' })),
    await errorOf(system.admin(`PROBE postgres://postgres:${encodeURIComponent(PROBE_SECRET)}@127.0.0.1:1/app`)),
  ];
  await moving.load();
  await moving.copyData();
  const shown = [...(await screens(moving))];
  const ofStreams = [...(await passwordsOfStreams(moving))];

  // One attempt that fails, so that reasons and failures are among what is searched; then there, back, and there.
  await moving.configure({ cutover_lease: 1_000, cutover_drain_timeout: 20_000, cutover_max_attempts: 1 });
  const direct = await connect(system.source.endpoint('app'));
  await direct.query(`BEGIN; INSERT INTO public.documents (body) VALUES ('in flight')`);
  errors.push(await errorOf(moving.cutover()));
  await direct.end();
  await moving.cutover();
  await moving.rollback();
  await moving.cutover();
  ofStreams.push(...(await passwordsOfStreams(moving)));
  shown.push(...(await screens(moving)));
  await moving.expectNothingLost();
  await system.admin(`STOP_TASK ${await moving.streamsTask()} SAVE`);
  await system.task('the move is finished', (t) => t.type === 'copy_data prod -> prod_new' && t.status === 'finished');
  shown.push(...(await screens(moving)));

  const passwords = [
    ...['app secret', 'admin secret', PROBE_SECRET, system.source.password, system.destination.password],
    ...ofStreams,
  ];
  expect(new Set(passwords).size).toBeGreaterThanOrEqual(7);
  const places: Record<string, readonly string[]> = {
    'log of the program': said,
    'errors clients read': errors,
    'histories of Temporal': await historiesOf(moving.temporal),
    'SHOW output': shown,
    'log of the source': [system.source.log],
    'log of the destination': [system.destination.log],
  };
  for (const cluster of [system.source, system.destination])
    places[`record of ${cluster.major.toString()}`] = textsIn(
      await cluster.query(
        'app',
        'SELECT e::text, d::text, m::text FROM cutover.event e, cutover.decision d, cutover.migration m',
      ),
    );
  for (const [place, texts] of Object.entries(places)) {
    const all = texts.join('\n');
    // What is searched is really there: each place tells of this move, in readable text.
    if (place !== 'log of the program') expect(all, place).toMatch(/prod_new|entries|password authentication failed/);
  }
  expect(leaksIn(places, passwords)).toEqual([]);
  for (const cluster of [system.source, system.destination]) {
    expect(await connectionStrings(cluster)).toEqual([]);
    expect(await cluster.query('app', `SELECT rolname FROM pg_roles WHERE rolname ~ 'cutover'`)).toEqual([]);
  }
});
