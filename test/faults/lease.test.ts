/** One task: an engine that falls silent, or a proxy that starts again, inside the pause: the node alone comes to the decided side. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { CriticalSection } from '../../activities/critical-section.js';
import type { EpochPlan, Heading } from '../../src/cutover/contract.js';
import { epochStream, STEPS, type Step } from '../../src/cutover/epoch.js';
import { sideOf } from '../../src/cutover/side.js';
import { signalProcess } from '../../src/dev/processes.js';
import { connect, withConnection } from '../../src/postgres/connection.js';
import { engineEndpoint } from '../../src/postgres/endpoint.js';
import { abortEpoch, commitEpoch } from '../../src/postgres/record.js';
import { SILENT } from '../../src/proxy/logger.js';
import { serve, type Served } from '../../src/serve.js';
import { acceptingSides, countPauses, decisionAt, move, planFor, withoutNodes, Writers } from '../support/faults.js';
import { configText, usePair, type Pair } from '../support/pair.js';

import { until } from '../support/wait.js';

const LEASE_MS = 700;
const GENERAL = `cutover_lease = ${LEASE_MS.toString()}`;
const BRISK = { wal_retrieve_retry_interval: '200ms' };

class Silence extends Error {}

/** Runs the parts until `step` begins; from there on the engine does nothing any more, as if it were gone. */
async function silentBefore(pair: Pair, plan: EpochPlan, step: Step): Promise<void> {
  pair.onStep = (_, current) => {
    if (current === step) throw new Silence(`silent before ${step}`);
  };
  const result = await new CriticalSection(pair.context).moveTraffic(plan);
  pair.onStep = () => undefined;
  expect(result).toMatchObject({ ok: false, reason: `silent before ${step}` });
}

const served = (heading: Heading): 'source' | 'destination' => (heading === 'forward' ? 'destination' : 'source');
const opposite = (heading: Heading): Heading => (heading === 'forward' ? 'reverse' : 'forward');
const committed = (step: Step): boolean => STEPS.indexOf(step) > STEPS.indexOf('commitCutover');

describe.each([
  { source: 17, destination: 18, steps: STEPS },
  { source: 15, destination: 18, steps: ['commitCutover', 'swapConfiguration'] as readonly Step[] },
] as const)('the engine falls silent, $source → $destination', ({ source, destination, steps }) => {
  const pairOf = usePair({ source, destination, general: GENERAL, settings: BRISK });
  let writers: Writers;
  let heading: Heading = 'forward';

  beforeEach(async () => {
    writers = await Writers.start(() => pairOf().client());
  });
  afterEach(async () => {
    await writers.settle(pairOf());
  });

  test('a session that stands still where its server answers is not waited for', async () => {
    const pair = pairOf();
    const plan = await planFor(pair, heading);
    const serving = heading === 'forward' ? pair.source : pair.destination;
    const sealing = await pair.context.connections.get(engineEndpoint(pair.proxy.config, 'prod'), 'seal');
    const { rows } = await sealing.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    const pid = rows[0]?.pid ?? 0;
    onTestFinished(() => {
      signalProcess(pid, 'SIGCONT');
    });
    pair.onStep = (_, step) => {
      if (step === 'sealSource') signalProcess(pid, 'SIGSTOP');
    };
    const gate = pair.proxy.gate('prod');
    const attempt = new CriticalSection(pair.context).moveTraffic(plan);
    await until('the gate closes', () => gate.reasons.includes('cutover'));
    await until('the gate opens by itself', () => !gate.reasons.includes('cutover'), 10_000);
    signalProcess(pid, 'SIGCONT');
    pair.onStep = () => undefined;
    expect(await attempt).toMatchObject({ ok: false, step: 'sealSource' });
    expect(await decisionAt(serving, plan.epoch)).toMatchObject({ state: 'aborted' });
  });

  test.each(steps)('before %s: the node decides by its lease, and the next move works', async (step) => {
    const pair = pairOf();
    const pauses = countPauses(pair.proxy.gate('prod'));
    const plan = await planFor(pair, heading);
    await silentBefore(pair, plan, step);
    // Nobody pauses before step 1; after it the gate opens by itself.
    const gate = pair.proxy.gate('prod');
    await until('the gate opens by itself', () => !gate.reasons.includes('cutover'));
    await writers.flow();
    const recordSide = heading === 'forward' ? pair.source : pair.destination;
    const decision = await decisionAt(recordSide, plan.epoch);
    const paused = step !== 'pauseTraffic';
    expect(decision?.state).toBe(committed(step) ? 'committed' : paused ? 'aborted' : 'preparing');
    if (paused && !committed(step)) expect(decision?.reason).toContain('lease');
    if (committed(step)) heading = opposite(heading);
    expect(await acceptingSides(pair)).toEqual([served(opposite(heading))]);
    expect(pauses()).toBe(paused ? 1 : 0);
    await move(pair, heading);
    expect(await acceptingSides(pair)).toEqual([served(heading)]);
    heading = opposite(heading);
  });
});

describe('the proxy starts again on the same files', () => {
  const pairOf = usePair({ source: 17, destination: 18, general: GENERAL });

  /** A second life of the proxy of a pair: files that were never saved, as they were before the first move. */
  async function startAgain(pair: Pair): Promise<Served> {
    const directory = mkdtempSync(join(tmpdir(), 'cutover-restart-'));
    const files = { config: join(directory, 'pgdog.toml'), users: join(directory, 'users.toml') };
    const text = configText(pair.source, pair.destination, GENERAL);
    writeFileSync(files.config, text.config);
    writeFileSync(files.users, text.users);
    const again = await serve({ files, worker: false, logger: SILENT });
    onTestFinished(async () => {
      await again.close(0);
      rmSync(directory, { recursive: true });
    });
    return again;
  }

  async function clientsOf(again: Served): Promise<Writers> {
    return Writers.start(() => connect({ ...again.address, database: 'prod', user: 'postgres', password: 'secret' }));
  }

  test('with an epoch left sealed: it holds its clients, aborts, and serves the source', async () => {
    const pair = pairOf();
    const plan = await planFor(pair, 'forward');
    await silentBefore(pair, plan, 'awaitParity');
    // The first life ends before its lease does.
    await pair.node.close();
    const again = await startAgain(pair);
    const writers = await clientsOf(again);
    await writers.flow();
    expect(await decisionAt(pair.source, plan.epoch)).toMatchObject({ state: 'aborted' });
    expect(await again.node.state('prod')).toMatchObject({ serving: sideOf(plan.source), gateReasons: [] });
    expect(await acceptingSides(pair)).toEqual(['source']);
    await writers.settle(pair);
  });

  test('with an epoch left aborted and not released: it releases the source and serves it', async () => {
    const pair = pairOf();
    const plan = await planFor(pair, 'forward', withoutNodes(pair));
    const closed = await new CriticalSection(pair.context).closeSource(plan);
    expect(closed).toMatchObject({ ok: true });
    await withConnection(pair.source.endpoint('app'), (record) =>
      abortEpoch(record, plan.source, plan.epoch, 'aborted, then gone'),
    );
    expect(await acceptingSides(pair)).toEqual([]);
    const again = await startAgain(pair);
    const writers = await clientsOf(again);
    await writers.flow();
    expect(await again.node.state('prod')).toMatchObject({ serving: sideOf(plan.source), gateReasons: [] });
    expect(await acceptingSides(pair)).toEqual(['source']);
    await writers.settle(pair);
  });

  test('with an epoch left committed and not opened: it opens the destination and serves it', async () => {
    const pair = pairOf();
    // The node of the first life is gone.
    const plan = await planFor(pair, 'forward', withoutNodes(pair));
    const section = new CriticalSection(pair.context);
    const closed = await section.closeSource(plan);
    const proven = await section.proveDestination(plan, closed.events, closed.ok ? closed.sealLsn : null);
    expect(proven).toMatchObject({ ok: true });
    const stream = epochStream(pair.migration.id, plan.epoch);
    await withConnection(pair.source.endpoint('app'), (record) =>
      commitEpoch(record, plan.source, plan.epoch, plan.nonce, stream, []),
    );
    expect(await acceptingSides(pair)).toEqual([]);
    const again = await startAgain(pair);
    const writers = await clientsOf(again);
    await writers.flow();
    expect(await again.node.state('prod')).toMatchObject({ serving: sideOf(plan.destination), gateReasons: [] });
    expect(await acceptingSides(pair)).toEqual(['destination']);
    await writers.settle(pair);
  });
});
