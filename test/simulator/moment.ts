/**
 * One task: begin an epoch at a moment when every node is ready.
 *
 * A THIN RESTATEMENT of awaitMoment() in activities/moment.ts, with its functions for nodes and left-over epochs: what it looks
 * at in servers ahead of the pause (lag, schemas, standbys, plans) has no part in the protocol.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { EngineContext } from '../../activities/context.js';
import { resolveLeftOver, sidesOfHeading } from '../../activities/moment.js';
import { nodesNotYet, requireNodes } from '../../activities/nodes.js';
import type { MomentRequest } from '../../src/cutover/activities.js';
import type { EpochPlan } from '../../src/cutover/contract.js';
import { sideOf, type PinnedSide, type Side } from '../../src/cutover/side.js';
import { invariant } from '../../src/errors/invariant.js';
import type { Connection } from '../../src/postgres/connection.js';
import { beginEpoch, readIdentity, readRecord } from '../../src/postgres/record.js';

/** The engine's connection to the record of a side. */
export async function recordOf(context: EngineContext, side: Side): Promise<Connection> {
  return context.connections.get(await context.directory.endpointOf(side), 'record');
}

const POLL_MS = 100;
const POLLS_MAX = 600;

async function pin(context: EngineContext, side: Side): Promise<PinnedSide> {
  const { systemIdentifier, databaseOid, timeline } = await readIdentity(await recordOf(context, side));
  return { systemIdentifier, databaseOid, timeline };
}

export async function moment(context: EngineContext, request: MomentRequest): Promise<EpochPlan> {
  const { migration, heading, attempt, acceptLoss } = request;
  const { source, destination } = sidesOfHeading(migration, heading);
  await resolveLeftOver(context, migration, source, destination);
  const { cutover } = context.config();
  const { database, peer } = migration;
  const pinned = { source: await pin(context, source), destination: await pin(context, destination) };
  const records = await Promise.all(
    [source, destination].map(async (side) => readRecord(await recordOf(context, side))),
  );
  const floorEpoch = Math.max(0, ...records.flatMap((r) => (r ? [r.fence.epoch, r.decisions[0]?.epoch ?? 0] : [])));
  const nodes = await requireNodes(context, database);
  const { saveConfig } = cutover;
  const swap = { database, peer, epoch: floorEpoch + 1, serving: sideOf(destination), saveConfig };
  await Promise.all(context.fleet.nodes(nodes).map((node) => node.prepare(swap)));
  for (let polls = 0; (await nodesNotYet(context, nodes, database)) !== null; polls++) {
    invariant(polls < POLLS_MAX, 'the nodes come to the point from which a cutover may begin');
    await delay(POLL_MS);
  }
  const names = { migration: migration.id, attempt, nonce: randomUUID(), floorEpoch, database, peer };
  const decision = await beginEpoch(await recordOf(context, source), { ...names, ...pinned, fenced: true });
  const { leaseMs, drainTimeoutMs: drainMs, drainAction, timeoutMs, timeoutAction, maxAttempts } = cutover;
  return {
    ...{ migration, heading, epoch: decision.epoch, nonce: decision.nonce, attempt, ...pinned, nodes },
    ...{ leaseMs, drainMs, drainAction, timeoutMs, timeoutAction, acceptLoss, saveConfig, maxAttempts },
  };
}
