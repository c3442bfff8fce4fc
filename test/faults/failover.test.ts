/**
 * One task: a side that fails over to a physical standby before, inside and after the pause: nobody serves the wrong side, the
 * decision is one, and the reason is told.
 *
 * The promoted server stands at the address of the one it followed, as an operator with a virtual address would have it.
 */
import { describe, expect, onTestFinished, test } from 'vitest';
import { CriticalSection } from '../../activities/critical-section.js';
import { destinationStands } from '../../activities/proofs.js';
import type { EpochPlan, PartResult } from '../../src/cutover/contract.js';
import { epochStream } from '../../src/cutover/epoch.js';
import { promoteInPlaceOf, startStandby, type Cluster } from '../../src/dev/embedded-postgres.js';
import { childrenOf, signalProcess } from '../../src/dev/processes.js';
import { withConnection } from '../../src/postgres/connection.js';
import { commitEpoch, readRecord } from '../../src/postgres/record.js';
import { standbysBehind } from '../../src/postgres/standbys.js';
import { acceptingSides, decisionAt, move, planFor } from '../support/faults.js';
import { Pair } from '../support/pair.js';
import { until } from '../support/wait.js';

const TIMEOUT = 'cutover_timeout = 2000';
const BRISK = { wal_retrieve_retry_interval: '200ms' };

/** @param leaseMs longer than it takes to kill a server, where that must come before the node decides by itself */
async function startPair(leaseMs = 700): Promise<Pair> {
  const general = `cutover_lease = ${leaseMs.toString()}\n${TIMEOUT}`;
  const pair = await Pair.start({ source: 17, destination: 17, general, settings: BRISK });
  onTestFinished(() => pair.stop());
  return pair;
}

async function standbyOf(primary: Cluster): Promise<Cluster> {
  const standby = await startStandby(primary, 'heir');
  onTestFinished(() => standby.remove());
  await level(primary);
  return standby;
}

/** The standby is connected and has flushed everything. */
async function level(primary: Cluster): Promise<void> {
  await until('the standby streams', async () => {
    const rows = await primary.query('postgres', `SELECT FROM pg_stat_replication WHERE application_name = 'heir'`);
    const behind = await withConnection(primary.endpoint('postgres'), (c) => standbysBehind(c, null));
    return rows.length === 1 && behind.behind.length === 0;
  });
}

/** From here on the standby hears nothing more: it will lack what comes. */
async function cutOff(primary: Cluster, standby: Cluster): Promise<void> {
  await standby.query('postgres', `ALTER SYSTEM SET primary_conninfo = ''`);
  await standby.query('postgres', 'SELECT pg_reload_conf()');
  await until('the standby is cut off', async () => {
    const rows = await primary.query('postgres', `SELECT FROM pg_stat_replication WHERE application_name = 'heir'`);
    return rows.length === 0;
  });
}

async function failOver(primary: Cluster, standby: Cluster): Promise<Cluster> {
  await primary.kill();
  const promoted = await promoteInPlaceOf(primary, standby);
  onTestFinished(() => promoted.remove());
  return promoted;
}

/** Writes through the proxy, over a connection of its own. */
async function write(pair: Pair, name: string): Promise<void> {
  const client = await pair.client();
  try {
    await client.query('INSERT INTO public.item (name) VALUES ($1)', [name]);
  } finally {
    await client.end();
  }
}

async function holds(cluster: Cluster, name: string): Promise<boolean> {
  return (await cluster.query('app', `SELECT FROM public.item WHERE name = '${name}'`)).length === 1;
}

const gateOpens = (pair: Pair): Promise<unknown> =>
  until('the gate opens by itself', () => !pair.proxy.gate('prod').closed, 20_000);

/** Steps 1 to 5 of a plan that nobody carries on with; the node hears no more of it. */
async function provenThenSilent(pair: Pair, plan: EpochPlan): Promise<PartResult> {
  const section = new CriticalSection(pair.context);
  const closed = await section.closeSource(plan);
  expect(closed).toMatchObject({ ok: true });
  const proven = await section.proveDestination(plan, closed.events, closed.ok ? closed.sealLsn : null);
  expect(proven).toMatchObject({ ok: true });
  return { ...proven, events: [...closed.events, ...proven.events] };
}

function commit(pair: Pair, plan: EpochPlan): Promise<unknown> {
  const stream = epochStream(pair.migration.id, plan.epoch);
  return withConnection(pair.source.endpoint('app'), (record) =>
    commitEpoch(record, plan.source, plan.epoch, plan.nonce, stream, []),
  );
}

describe('the source', () => {
  test('a standby without the seal holds the commit back by name; a promoted source aborts and is not moved from again', async () => {
    const pair = await startPair();
    const standby = await standbyOf(pair.source);
    const family = [standby.pid, ...childrenOf(standby.pid)];
    const plan = await planFor(pair, 'forward');
    for (const pid of family) signalProcess(pid, 'SIGSTOP');
    const section = new CriticalSection(pair.context);
    const held = await section.moveTraffic(plan);
    for (const pid of family) signalProcess(pid, 'SIGCONT');
    expect(held).toMatchObject({ ok: false, step: 'awaitParity' });
    expect(held.ok ? '' : held.reason).toContain('standby "heir" is');
    await section.returnToSource(plan, 'a standby is behind');
    await write(pair, 'before the fail-over');
    await level(pair.source);

    // Inside the pause, after the seal; the standby has it.
    const second = await planFor(pair, 'forward');
    const closed = await section.closeSource(second);
    expect(closed).toMatchObject({ ok: true });
    await level(pair.source);
    const promoted = await failOver(pair.source, standby);
    await gateOpens(pair);
    expect(await decisionAt(promoted, second.epoch)).toMatchObject({ state: 'aborted' });
    expect(await acceptingSides({ source: promoted, destination: pair.destination })).toEqual(['source']);
    await write(pair, 'after the fail-over');
    expect(await holds(promoted, 'before the fail-over')).toBe(true);
    expect(await holds(promoted, 'after the fail-over')).toBe(true);

    // Before the next pause: the streams cannot be trusted any more.
    await expect(planFor(pair, 'forward')).rejects.toMatchObject({ code: 'failed_over' });
    expect(pair.proxy.gate('prod').closed).toBe(false);
  }, 90_000);

  test('a promoted source without the epoch: the door of the destination is shut before it serves, and the late commit opens nothing', async () => {
    const pair = await startPair(4_000);
    const standby = await standbyOf(pair.source);
    await cutOff(pair.source, standby);
    const plan = await planFor(pair, 'forward');
    await provenThenSilent(pair, plan);
    await commit(pair, plan);
    const decision = await decisionAt(pair.source, plan.epoch);
    expect(decision).toMatchObject({ state: 'committed' });
    const promoted = await failOver(pair.source, standby);
    await gateOpens(pair);
    expect(await decisionAt(promoted, plan.epoch)).toBeUndefined();
    const door = await withConnection(pair.destination.endpoint('app'), readRecord);
    expect(door?.fence).toMatchObject({ state: 'refused', epoch: plan.epoch, up: true });
    expect(await acceptingSides({ source: promoted, destination: pair.destination })).toEqual(['source']);
    // The engine that saw the commit goes on: the destination does not open for it, and nothing is routed there.
    const late = await new CriticalSection(pair.context).openDestination(plan, [], true);
    expect(late).toMatchObject({ ok: false });
    await write(pair, 'after the fail-over');
    expect(await holds(promoted, 'after the fail-over')).toBe(true);
    expect(await acceptingSides({ source: promoted, destination: pair.destination })).toEqual(['source']);
  }, 90_000);
});

test('a destination promoted inside the pause ends the attempt, and nobody moves to it any more; the source serves', async () => {
  const pair = await startPair(6_000);
  const heir = await standbyOf(pair.destination);
  const plan = await planFor(pair, 'forward');
  const section = new CriticalSection(pair.context);
  // Everything is proven, and then it is another server that would commit to it.
  await provenThenSilent(pair, plan);
  const promoted = await failOver(pair.destination, heir);
  await expect(destinationStands(pair.context, plan)).rejects.toMatchObject({
    code: 'failed_over',
    message: expect.stringContaining('destination') as string,
  });
  await section.returnToSource(plan, 'the destination failed over');
  expect(await decisionAt(pair.source, plan.epoch)).toMatchObject({ state: 'aborted' });
  await write(pair, 'after the abort');
  expect(await holds(pair.source, 'after the abort')).toBe(true);
  const sides = { source: pair.source, destination: promoted };
  expect(await acceptingSides(sides)).toEqual(['source']);

  // Before the pause: it may lack rows that its slot has confirmed already.
  await expect(planFor(pair, 'forward')).rejects.toMatchObject({
    code: 'failed_over',
    message: expect.stringContaining('destination') as string,
  });
  await write(pair, 'and again');
  expect(await acceptingSides(sides)).toEqual(['source']);
}, 90_000);

describe('after the commit', () => {
  test('an old side that comes back from before its seal is fenced again; a promoted destination serves on and cannot be rolled back', async () => {
    const pair = await startPair();
    const old = await standbyOf(pair.source);
    await cutOff(pair.source, old);
    await move(pair, 'forward');
    await write(pair, 'on the new side');
    const promotedOld = await failOver(pair.source, old);
    await until(
      'the keeper fences the old side again',
      async () => {
        const accepting = await acceptingSides({ source: promotedOld, destination: pair.destination });
        return accepting.join() === 'destination';
      },
      20_000,
    );
    const kept = await withConnection(promotedOld.endpoint('app'), readRecord);
    expect(kept).toMatchObject({ fence: { state: 'sealed', up: true }, decisions: [{ state: 'committed' }] });

    const heir = await standbyOf(pair.destination);
    const promoted = await failOver(pair.destination, heir);
    await until(
      'writes go on',
      () =>
        write(pair, 'on the promoted side').then(
          () => true,
          () => false,
        ),
      20_000,
    );
    expect(await holds(promoted, 'on the new side')).toBe(true);
    expect(await acceptingSides({ source: promotedOld, destination: promoted })).toEqual(['destination']);
    await expect(planFor(pair, 'reverse')).rejects.toMatchObject({ code: 'failed_over' });
  }, 90_000);

  test('a destination promoted from before it was ready does not open: nobody serves, clients are told, and a person is named', async () => {
    const pair = await startPair(4_000);
    const heir = await standbyOf(pair.destination);
    await cutOff(pair.destination, heir);
    const plan = await planFor(pair, 'forward');
    await provenThenSilent(pair, plan);
    await commit(pair, plan);
    const promoted = await failOver(pair.destination, heir);
    const client = await pair.client();
    await expect(client.query('SELECT 1')).rejects.toMatchObject({
      code: '57P03',
      message: expect.stringContaining('nobody can say which side serves') as string,
      hint: expect.stringContaining('cutover resolve') as string,
    });
    await client.end();
    expect(await acceptingSides({ source: pair.source, destination: promoted })).toEqual([]);
    expect(await decisionAt(pair.source, plan.epoch)).toMatchObject({ state: 'committed' });
  }, 90_000);
});
