/** One task: a standby of the destination that lacks what was proven holds the commit back: promoted later, it could not get it again. */
import { expect, onTestFinished, test } from 'vitest';
import { CriticalSection } from '../../activities/critical-section.js';
import { startStandby } from '../../src/dev/embedded-postgres.js';
import { childrenOf, signalProcess } from '../../src/dev/processes.js';
import { withConnection } from '../../src/postgres/connection.js';
import { standbysBehind } from '../../src/postgres/standbys.js';
import { acceptingSides, move, planFor } from '../support/faults.js';
import { usePair } from '../support/pair.js';
import { until } from '../support/wait.js';

const pairOf = usePair({ source: 17, destination: 17, general: 'cutover_lease = 700\ncutover_timeout = 1500' });

test('it is named, the source serves on, and with the standby level the move works', { timeout: 90_000 }, async () => {
  const pair = pairOf();
  const standby = await startStandby(pair.destination, 'heir');
  onTestFinished(() => standby.remove());
  await until('the standby is level', async () =>
    withConnection(pair.destination.endpoint('postgres'), async (connection) => {
      const { rowCount } = await connection.query(`SELECT FROM pg_stat_replication WHERE application_name = 'heir'`);
      return rowCount === 1 && (await standbysBehind(connection, null)).behind.length === 0;
    }),
  );
  const family = [standby.pid, ...childrenOf(standby.pid)];
  const plan = await planFor(pair, 'forward');
  for (const pid of family) signalProcess(pid, 'SIGSTOP');
  const section = new CriticalSection(pair.context);
  const held = await section.moveTraffic(plan);
  for (const pid of family) signalProcess(pid, 'SIGCONT');
  expect(held).toMatchObject({ ok: false, reason: expect.stringContaining('standby "heir" is') as unknown });
  await section.returnToSource(plan, 'a standby is behind');
  expect(await acceptingSides(pair)).toEqual(['source']);
  await move(pair, 'forward');
  expect(await acceptingSides(pair)).toEqual(['destination']);
});
