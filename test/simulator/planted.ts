/**
 * One task: faults planted in the product, at least one in each of the eight steps, each of which the simulator has to find.
 *
 * Each is what a programmer could have written: a check left out, an order turned round, a step taken for done.
 */
import { connectionTo, type EngineContext } from '../../activities/context.js';
import { CriticalSection } from '../../activities/critical-section.js';
import type { Story } from '../../activities/pause-story.js';
import type { EpochPlan, PartResult } from '../../src/cutover/contract.js';
import type { EpochEvent, Step } from '../../src/cutover/epoch.js';
import { sameSide, sideOf, type Side } from '../../src/cutover/side.js';
import { CutoverError } from '../../src/errors/errors.js';
import { LocalNode } from '../../src/fleet/local-node.js';
import type { FleetNode, PauseAnswer, PauseRequest } from '../../src/fleet/node.js';
import { openDestination, ready, type Decision } from '../../src/postgres/record.js';
import { streamName } from '../../src/postgres/streams.js';
import type { Transaction, Work } from './database.js';
import type { Invariant } from './invariants.js';
import { markerKey, seal } from './record-functions.js';
import type { Parts } from './world.js';

export interface PlantedFault {
  readonly step: Step;
  readonly what: string;
  readonly parts: Partial<Parts>;
  /** what it breaks, as the simulator sees it first */
  readonly breaks: readonly Invariant[];
}

/** A critical section whose faults may reach what it reaches. */
class Faulty extends CriticalSection {
  readonly context: EngineContext;

  constructor(context: EngineContext) {
    super(context);
    this.context = context;
  }

  nodes(plan: EpochPlan): readonly FleetNode[] {
    return this.context.fleet.nodes(plan.nodes);
  }
}

class DoesNotWaitForTransactions extends Faulty {
  override async pauseTraffic(plan: EpochPlan, story: Story): Promise<'held' | 'decided'> {
    try {
      return await super.pauseTraffic({ ...plan, drainMs: 0 }, story);
    } catch (error) {
      if (!(error instanceof CutoverError) || error.code !== 'drain_timeout') throw error;
      story.done('pauseTraffic', { at: new Date().toISOString() });
      return 'held';
    }
  }
}

class HoldsForEver extends LocalNode {
  override pause(request: PauseRequest): Promise<PauseAnswer> {
    return super.pause({ ...request, leaseMs: 1e9 });
  }
}

class TakesParityForGiven extends Faulty {
  override awaitParity(): ReturnType<CriticalSection['awaitParity']> {
    return Promise.resolve({ parity: 'exact' });
  }
}

class DoesNotProveTheWayBack extends Faulty {
  override async createReverseReplication(plan: EpochPlan): Promise<void> {
    await ready(await connectionTo(this.context, plan.destination), plan.destination, {
      ...{ epoch: plan.epoch, nonce: plan.nonce, shard: 0, fenced: true },
      subscription: streamName(plan.migration.id, plan.heading),
    });
  }
}

class OpensBeforeTheCommit extends Faulty {
  override async openDestination(
    plan: EpochPlan,
    earlier: readonly EpochEvent[],
    decided: boolean,
  ): Promise<PartResult> {
    const expected: Decision = {
      ...{ epoch: plan.epoch, migration: plan.migration.id, attempt: plan.attempt, nonce: plan.nonce },
      ...{ state: 'committed', database: plan.migration.database, peer: plan.migration.peer },
      ...{ source: plan.source, destination: plan.destination, seal_lsn: '0/1', reason: null },
      ...{ begun_at: '', decided_at: null },
    };
    await openDestination(await connectionTo(this.context, plan.destination), expected);
    return super.openDestination(plan, earlier, decided);
  }
}

class ExchangesSides extends Faulty {
  override async swapConfiguration(plan: EpochPlan): Promise<void> {
    const { database, peer } = plan.migration;
    const { epoch, saveConfig } = plan;
    await Promise.allSettled(
      this.nodes(plan).map(async (node) => {
        const { serving } = await node.state(database);
        const there: Side = serving && sameSide(serving, plan.destination) ? plan.source : plan.destination;
        await node.swap({ database, peer, epoch, serving: sideOf(there), saveConfig });
      }),
    );
  }
}

class SwapsToTheOldSide extends Faulty {
  override async swapConfiguration(plan: EpochPlan): Promise<void> {
    const { database, peer } = plan.migration;
    const { epoch, saveConfig } = plan;
    const serving = sideOf(plan.source);
    await Promise.allSettled(this.nodes(plan).map((node) => node.swap({ database, peer, epoch, serving, saveConfig })));
  }
}

class ResumesOnTheOldSide extends Faulty {
  override async resumeTraffic(plan: EpochPlan): Promise<void> {
    const { database } = plan.migration;
    await Promise.allSettled(this.nodes(plan).map((node) => node.resume(database, plan.epoch, sideOf(plan.source))));
  }
}

function* advancesNothing(transaction: Transaction): Work<Record<string, unknown>> {
  return { ...transaction.database.identity(), advanced: 0 };
}

/** The seal as it would be if nothing ever came late: whatever epoch the fence and the record are at. */
function* sealsAnyEpoch(transaction: Transaction, values: readonly unknown[]): Work<Record<string, unknown>> {
  const [epoch, nonce] = values as [number, string];
  const { database } = transaction;
  yield { lock: 'tables', mode: 'exclusive' };
  yield { lock: 'fence', mode: 'exclusive' };
  const lsn = database.lsnText;
  const decision = transaction.decision(epoch);
  if (decision?.state === 'preparing')
    transaction.decisions.set(epoch, { ...decision, state: 'sealed', seal_lsn: lsn });
  const mark = markerKey(database.systemIdentifier, epoch, nonce, 'seal');
  if (!database.markers.has(mark)) transaction.markers.add(mark);
  transaction.fenceRow = { epoch, state: 'sealed', nonce, seal_lsn: lsn };
  database.setFlag(true);
  return { ...database.identity(), lsn, repeated: false, tables: 2 };
}

/** The seal that neither locks the tables nor asks, behind its flag, who got past it. */
function doesNotWaitForWriters(transaction: Transaction, values: readonly unknown[]): Work<Record<string, unknown>> {
  return seal(transaction, values, () => false);
}

/** The commit without compare-and-set. */
function* commitsWhateverStands(transaction: Transaction, values: readonly unknown[]): Work<Record<string, unknown>> {
  const [epoch] = values as [number];
  yield { lock: 'fence', mode: 'exclusive' };
  yield { lock: `decision ${epoch.toString()}`, mode: 'exclusive' };
  const decision = transaction.decision(epoch);
  if (!decision) return {};
  const committed: Decision = { ...decision, state: 'committed' };
  transaction.decisions.set(epoch, committed);
  return { ...transaction.database.identity(), ...committed };
}

/** The release without the check of its epoch: a late one of a dead epoch opens a later seal. */
function* releasesAnyEpoch(transaction: Transaction): Work<Record<string, unknown>> {
  yield { lock: 'fence', mode: 'exclusive' };
  const fence = { ...transaction.fence, state: 'open' as const };
  transaction.fenceRow = fence;
  return { ...transaction.database.identity(), ...fence };
}

export const PLANTED: readonly PlantedFault[] = [
  {
    step: 'pauseTraffic',
    what: 'the pause does not wait for transactions that run',
    parts: { section: DoesNotWaitForTransactions },
    breaks: ['unnoticed'],
  },
  {
    step: 'pauseTraffic',
    what: 'a node holds its clients without a lease',
    parts: { node: HoldsForEver },
    breaks: ['I4'],
  },
  {
    step: 'sealSource',
    what: 'the seal does not check its epoch',
    parts: { functions: { 'cutover.seal': sealsAnyEpoch } },
    breaks: ['I1', 'I2', 'I3', 'I4'],
  },
  {
    step: 'sealSource',
    what: 'the seal does not wait for writers in flight',
    parts: { functions: { 'cutover.seal': doesNotWaitForWriters } },
    breaks: ['I1', 'I2'],
  },
  {
    step: 'sealSource',
    what: 'the flag is read from the snapshot of the writer',
    parts: { flagSeen: (database, transaction) => database.upAt(transaction.beganAt) },
    breaks: ['I1', 'I2'],
  },
  {
    step: 'awaitParity',
    what: 'parity is taken for given',
    parts: { section: TakesParityForGiven },
    breaks: ['I2'],
  },
  {
    step: 'advanceSequences',
    what: 'sequences are not advanced',
    parts: { functions: { 'cutover.advance_sequences': advancesNothing } },
    breaks: ['I2'],
  },
  {
    step: 'createReverseReplication',
    what: 'the way back is not proven',
    parts: { section: DoesNotProveTheWayBack },
    breaks: ['I5'],
  },
  {
    step: 'commitCutover',
    what: 'the commit overwrites an abort',
    parts: { functions: { 'cutover.commit': commitsWhateverStands } },
    breaks: ['I3', 'I1', 'I2'],
  },
  {
    step: 'commitCutover',
    what: 'the destination opens before the commit',
    parts: { section: OpensBeforeTheCommit },
    breaks: ['I1', 'I2', 'I3'],
  },
  {
    step: 'commitCutover',
    what: 'a late release of a dead epoch opens a later seal',
    parts: { functions: { 'cutover.release': releasesAnyEpoch } },
    breaks: ['I1', 'I2', 'I3', 'I4'],
  },
  {
    step: 'swapConfiguration',
    what: 'the swap exchanges the sides',
    parts: { section: ExchangesSides },
    breaks: ['I3'],
  },
  {
    step: 'swapConfiguration',
    what: 'the swap is told the wrong side',
    parts: { section: SwapsToTheOldSide },
    breaks: ['I3'],
  },
  {
    step: 'resumeTraffic',
    what: 'traffic resumes on the old side',
    parts: { section: ResumesOnTheOldSide },
    breaks: ['I3'],
  },
];
