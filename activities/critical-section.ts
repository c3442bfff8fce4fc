/**
 * One task: the eight steps of the pause, from top to bottom. Decisions are made in src/cutover and in PostgreSQL; here they
 * are carried out.
 *
 * The steps run in three parts (closeSource 1–2, proveDestination 3–5, openDestination 6–8), all of them in one local activity of one
 * workflow task. Each may run again after any later one, or twice at once; each await has a deadline, and beside each
 * step stands what happens when the process dies there.
 */
import type { EpochPlan, PartResult } from '../src/cutover/contract.js';
import { epochStream, SEQUENCE_OF, type EpochEvent, type Step } from '../src/cutover/epoch.js';
import { CutoverError, messageOf } from '../src/errors/errors.js';
import { invariant } from '../src/errors/invariant.js';
import { resolveEpoch } from '../src/fleet/resolution.js';
import type { FleetNode } from '../src/fleet/node.js';
import type { Connection } from '../src/postgres/connection.js';
import { writersInFlight } from '../src/postgres/fence.js';
import { canaryArrived, parityOf, type SealMark } from '../src/postgres/parity.js';
import {
  commitEpoch,
  isCommitted,
  openDestination as openFence,
  readRecord,
  ready,
  seal,
  type Decision,
} from '../src/postgres/record.js';
import type { Purpose } from '../src/postgres/connections.js';
import { shardsOf, sideOf, type PinnedSide, type Side } from '../src/cutover/side.js';
import { requireEqualSchemas } from './guards.js';
import { LeaseKeeper } from './lease-keeper.js';
import type { EngineContext } from './context.js';
import { createReverseNow, undoReverse } from './exclusive-streams.js';
import {
  firstFailureAt,
  roundMs,
  sealsTold,
  Story,
  unfenced,
  waiver,
  type Parity,
  type Sealed,
} from './pause-story.js';
import { poll } from './poll.js';
import { destinationStands, sourceStands, standbysHaveSeal } from './proofs.js';
import { handOver } from './sequences.js';
import { firstFrom, firstTo, streamsTo, type Stream } from './stream-ends.js';

const LOCK_NOT_AVAILABLE = '55P03';
/** The seal may wait for direct writers no longer than this part of the lease. */
const SEAL_SHARE_OF_LEASE = 0.5;

export class CriticalSection {
  readonly #context: EngineContext;

  constructor(context: EngineContext) {
    this.#context = context;
  }

  /**
   * The pause: steps 1 to 8; to 5 in a rehearsal. The story so far is part of the answer, also of one that failed; what it left is
   * taken back by `returnToSource`. May run again after any end of it, or twice at once.
   */
  async moveTraffic(plan: EpochPlan): Promise<PartResult> {
    const closed = await this.closeSource(plan);
    if (!closed.ok) return closed;
    const proven = await this.proveDestination(plan, closed.events, closed.sealLsn);
    const events = [...closed.events, ...proven.events];
    if (!proven.ok || plan.rehearse === true) return { ...proven, events };
    const opened = await this.openDestination(plan, events, closed.sealLsn === null);
    return { ...opened, events: [...events, ...opened.events] };
  }

  // ── closeSource: steps 1 and 2 ────────────────────────────────────────────────────────────────────────────────────────

  async closeSource(plan: EpochPlan): Promise<PartResult> {
    const story = new Story(plan.epoch);
    return this.#part(plan, story, 'pauseTraffic', async (at) => {
      // The destination waits for nobody, so it is looked at while clients end their transactions.
      const alike = requireEqualSchemas(this.#context, plan, 'destination');
      alike.catch(() => undefined);
      const pause = await this.pauseTraffic(plan, story);
      if (pause === 'decided') return null;
      at('sealSource');
      const [lsn] = await Promise.all([this.sealSource(plan, story), alike]);
      return lsn;
    });
  }

  /**
   * Step 1. Every node closes its gate for this database and answers when its transactions have ended.
   *
   * If the process dies here: nothing is written yet; each node's lease ends, it aborts the epoch and opens on the source.
   */
  async pauseTraffic(plan: EpochPlan, story: Story): Promise<'held' | 'decided'> {
    await this.#context.onStep(plan, 'pauseTraffic');
    const { migration, epoch, source, destination, leaseMs, drainMs, drainAction } = plan;
    const request = {
      database: migration.database,
      peer: migration.peer,
      epoch,
      source: sideOf(source),
      destination: sideOf(destination),
      leaseMs,
      drainMs,
      drainAction,
    };
    try {
      await story.step(
        'pauseTraffic',
        async () => {
          const answers = await Promise.all(this.#nodes(plan).map((node) => node.pause(request)));
          const holders = answers.flatMap((a) => (a.drained ? [] : a.holders));
          if (answers.some((a) => !a.drained))
            throw new CutoverError('drain_timeout', { waitedMs: drainMs, holders: holders.join('; ') || 'unknown' });
          return answers;
        },
        (answers) => ({ clientsHeld: answers.reduce((sum, a) => sum + a.clientsHeld, 0) }),
      );
      return 'held';
    } catch (error) {
      // A run after the decision: the nodes know the epoch resolved. A commit is then carried to its end, not refused.
      if (
        error instanceof CutoverError &&
        error.code === 'epoch_closed' &&
        isCommitted((await this.#decision(plan)).state)
      )
        return 'decided';
      throw error;
    }
  }

  /**
   * Step 2. One transaction on every source shard: writers waited for and barred, marker and decision written, flag up.
   *
   * If the process dies here: the backend notices (client_connection_check_interval) or commits a seal nobody waits for;
   * either way the nodes' leases end and the abort releases it. A seal that comes after the abort fails on the tombstone.
   */
  async sealSource(plan: EpochPlan, story: Story): Promise<string> {
    await this.#context.onStep(plan, 'sealSource');
    const sealed = await story.step(
      'sealSource',
      () => Promise.all(shardsOf(plan.source).map((shard, number) => this.#sealShard(plan, shard, number, story))),
      (seals) => ({
        ...seals[0],
        epoch: plan.epoch,
        ...(seals.length > 1 ? { shards: seals } : {}),
        ...unfenced(plan),
      }),
    );
    const [first] = sealed;
    invariant(first, 'a side has a shard 0');
    return first.lsn;
  }

  async #sealShard(plan: EpochPlan, shard: PinnedSide, number: number, story: Story): Promise<Sealed> {
    const lockTimeoutMs = Math.floor(plan.leaseMs * SEAL_SHARE_OF_LEASE);
    try {
      const { lsn, tables } = await seal(await this.#connection(shard, 'seal'), shard, {
        epoch: plan.epoch,
        nonce: plan.nonce,
        shard: number,
        publication: firstFrom(plan.migration, plan.heading, number).name,
        lockTimeoutMs,
        stream: epochStream(plan.migration.id, plan.epoch),
        events: story.recorded,
      });
      return { lsn, tables };
    } catch (error) {
      if ((error as { code?: string }).code !== LOCK_NOT_AVAILABLE) throw error;
      const holders = await writersInFlight(await this.#connection(shard, 'record'));
      throw new CutoverError('seal_blocked', {
        waitedMs: lockTimeoutMs,
        holders: holders.join('; ') || 'gone by now',
      });
    }
  }

  // ── proveDestination: steps 3 to 5 ────────────────────────────────────────────────────────────────────────────────────

  async proveDestination(plan: EpochPlan, earlier: readonly EpochEvent[], sealLsn: string | null): Promise<PartResult> {
    const story = new Story(plan.epoch, earlier);
    if (sealLsn === null) return { ok: true, events: [], sealLsn: null };
    return this.#part(plan, story, 'awaitParity', async (at) => {
      const start = performance.now();
      const elapsed = (): number => roundMs(performance.now() - start);
      // Sequences do not depend on parity, and where the way back runs already neither does its proof: side by side.
      const named = firstFailureAt(at);
      const parities = this.awaitParity(plan, sealsTold(earlier, sealLsn)).then((parity) => ({
        ...parity,
        ms: elapsed(),
      }));
      const sequences = this.advanceSequences(plan).then((count) => ({ count, ms: elapsed() }));
      const back = plan.migration.concurrent
        ? this.createReverseReplication(plan).then(() => ({ ms: elapsed() }))
        : Promise.resolve(null);
      const [parity, advanced, early] = await Promise.all([
        named('awaitParity', parities),
        named('advanceSequences', sequences),
        named('createReverseReplication', back),
        // Behind the seal: a writer it waited for may have changed a table.
        named('awaitParity', requireEqualSchemas(this.#context, plan, 'source')),
      ]);
      story.done('awaitParity', { sealLsn, ...parity });
      story.done('advanceSequences', { ms: advanced.ms, sequences: advanced.count });
      // Streams that cannot run beside the others are not made for a rehearsal: nothing would be left to take away.
      if (plan.rehearse === true && !early) return sealLsn;
      at('createReverseReplication');
      if (!early) await this.createReverseReplication(plan);
      story.done('createReverseReplication', {
        ms: early ? early.ms : roundMs(elapsed() - parity.ms),
        madeAhead: early !== null,
      });
      await Promise.all([destinationStands(this.#context, plan), sourceStands(this.#context, plan)]);
      return sealLsn;
    });
  }

  /**
   * Step 3. Every subscription has applied and flushed this seal's marker, with every table in step and no conflict since the
   * moment; every standby of the source has flushed the seal.
   *
   * If the process dies here: sealed and undecided; the leases end, the nodes abort, the source serves.
   */
  async awaitParity(plan: EpochPlan, seals: readonly Sealed[]): Promise<Parity> {
    await this.#context.onStep(plan, 'awaitParity');
    const [answers] = await Promise.all([
      Promise.all(shardsOf(plan.destination).map((shard, number) => this.#awaitShard(plan, shard, number, seals))),
      standbysHaveSeal(this.#context, plan),
    ]);
    const missing = answers.flatMap((answer) => (answer.done ? [] : [answer.missing])).join('; ');
    if (answers.every(({ done }) => done)) return { parity: 'exact' };
    if (plan.timeoutAction === 'cutover' && plan.acceptLoss)
      return { parity: 'waived', reason: waiver(plan.timeoutMs, missing) };
    throw new CutoverError('parity_timeout', { waitedMs: plan.timeoutMs, missing });
  }

  /** Of one shard of the destination: each of its subscriptions. */
  async #awaitShard(
    plan: EpochPlan,
    shard: Side,
    number: number,
    seals: readonly Sealed[],
  ): Promise<{ done: boolean; missing: string }> {
    const connection = await this.#connection(shard, 'parity');
    const marks = streamsTo(plan.migration, plan.heading, number).map((stream) => markOf(plan, stream, seals));
    return poll(plan.timeoutMs, async () => {
      const missing: string[] = [];
      for (const mark of marks) {
        const parity = await parityOf(connection, mark);
        if (!parity.level) missing.push(parity.missing);
      }
      return { done: missing.length === 0, missing: missing.join('; ') };
    });
  }

  /**
   * Step 4. The destination's sequences end past the source's, only upwards. Runs beside step 3.
   *
   * If the process dies here: sequences of a side that does not serve are ahead, which harms nothing.
   */
  async advanceSequences(plan: EpochPlan): Promise<number> {
    await this.#context.onStep(plan, 'advanceSequences');
    return handOver(this.#context, plan, plan.epoch);
  }

  /**
   * Step 5. The destination is stamped with the epoch, and a canary written there has arrived at the source: the way back
   * works before anybody depends on it. The streams are made here only where they could not be made ahead.
   *
   * If the process dies here: as in step 3; a reverse stream left behind is removed before the next attempt.
   */
  async createReverseReplication(plan: EpochPlan): Promise<void> {
    await this.#context.onStep(plan, 'createReverseReplication');
    if (!plan.migration.concurrent) await createReverseNow(this.#context, plan);
    await Promise.all(shardsOf(plan.destination).map((shard, number) => this.#readyShard(plan, shard, number)));
    await Promise.all(shardsOf(plan.source).map((shard) => this.#awaitCanaries(plan, shard)));
  }

  async #readyShard(plan: EpochPlan, shard: PinnedSide, number: number): Promise<void> {
    await ready(await this.#connection(shard, 'record'), shard, {
      epoch: plan.epoch,
      nonce: plan.nonce,
      shard: number,
      subscription: firstTo(plan.migration, plan.heading, number).name,
      fenced: plan.fence !== 'off',
    });
  }

  /** What every shard of the destination has written has arrived at one shard of the source. */
  async #awaitCanaries({ destination, epoch, nonce, timeoutMs }: EpochPlan, shard: Side): Promise<void> {
    const source = await this.#connection(shard, 'record');
    const missing = new Set(
      shardsOf(destination).map(({ systemIdentifier: cluster }, number) => ({ cluster, shard: number, epoch, nonce })),
    );
    const answer = await poll(timeoutMs, async () => {
      for (const canary of missing) if (await canaryArrived(source, canary)) missing.delete(canary);
      return { done: missing.size === 0, missing: 'the canary has not come back' };
    });
    if (!answer.done) throw new CutoverError('parity_timeout', { waitedMs: timeoutMs, missing: answer.missing });
  }

  // ── openDestination: steps 6 to 8 ─────────────────────────────────────────────────────────────────────────────────────

  async openDestination(plan: EpochPlan, earlier: readonly EpochEvent[], decided: boolean): Promise<PartResult> {
    const story = new Story(plan.epoch, earlier);
    return this.#part(plan, story, 'commitCutover', async (at) => {
      const decision = decided ? await this.#decision(plan) : await this.commitCutover(plan, story, earlier);
      invariant(isCommitted(decision.state), 'only a committed epoch is carried forward');
      at('swapConfiguration');
      await this.#context.onStep(plan, 'swapConfiguration');
      // Opening the fence and turning the nodes round do not depend on each other; both must stand before step 8.
      const swap = async (): Promise<void> => {
        if (decided) await this.swapConfiguration(plan);
        else
          await story.step(
            'swapConfiguration',
            () => this.swapConfiguration(plan),
            () => ({ saving: plan.saveConfig }),
          );
      };
      await Promise.all([this.#openFence(decision), swap()]);
      at('resumeTraffic');
      if (decided) await this.resumeTraffic(plan);
      else
        await story.step(
          'resumeTraffic',
          () => this.resumeTraffic(plan),
          () => ({ at: new Date().toISOString() }),
        );
      return decision.seal_lsn;
    });
  }

  /**
   * Step 6. `sealed → committed` by compare-and-set, on the record: THE POINT OF NO RETURN.
   *
   * If the process dies before it: abort. After it: whoever looks next (a node whose lease ends, this workflow task run
   * again) opens the destination and goes forward.
   */
  async commitCutover(plan: EpochPlan, story: Story, earlier: readonly EpochEvent[]): Promise<Decision> {
    await this.#context.onStep(plan, 'commitCutover');
    const record = await this.#connection(plan.source, 'record');
    const events = earlier.map((e) => ({ sequence: SEQUENCE_OF[e.type], type: e.type, data: e.data }));
    const stream = epochStream(plan.migration.id, plan.epoch);
    const own = { sequence: SEQUENCE_OF.CutoverCommitted, type: 'CutoverCommitted', data: { epoch: plan.epoch } };
    const commit = async (): Promise<Decision> => {
      const decision = await commitEpoch(record, plan.source, plan.epoch, plan.nonce, stream, [...events, own]);
      // Before the step is noted as done: an epoch that was aborted has no commit in its story.
      if (!isCommitted(decision.state))
        throw new CutoverError('epoch_closed', { epoch: plan.epoch, state: decision.state });
      return decision;
    };
    return story.step('commitCutover', commit, () => ({ epoch: plan.epoch }));
  }

  async #openFence(decision: Decision): Promise<void> {
    await Promise.all(
      shardsOf(decision.destination).map(async (shard) =>
        openFence(await this.#connection(shard, 'record'), decision, shard),
      ),
    );
  }

  /**
   * Step 7. Every node sets the side that serves in memory; it renames the prepared files into place once its gate is open.
   *
   * If the process dies here: committed; a node that starts reads the record and serves the destination, whatever its files say.
   */
  async swapConfiguration(plan: EpochPlan): Promise<void> {
    const { database, peer } = plan.migration;
    const request = {
      database,
      peer,
      epoch: plan.epoch,
      serving: sideOf(plan.destination),
      saveConfig: plan.saveConfig,
    };
    await this.#tellAll(plan, (node) => node.swap(request));
  }

  /**
   * Step 8. Gates open; held queries go to the destination.
   *
   * If the process dies here: nodes not yet told resolve by their own lease, to the same side.
   */
  async resumeTraffic(plan: EpochPlan): Promise<void> {
    await this.#context.onStep(plan, 'resumeTraffic');
    const { database } = plan.migration;
    await this.#tellAll(plan, (node) => node.resume(database, plan.epoch, sideOf(plan.destination)));
  }

  // ── the way out before step 6 ─────────────────────────────────────────────────────────────────────────────────────────

  /** Aborts the epoch unless it is committed, opens the decided side and lets the clients go. */
  async returnToSource(plan: EpochPlan, reason: string): Promise<{ outcome: 'committed' | 'aborted'; reason: string }> {
    const { database, peer } = plan.migration;
    const epoch = { database, epoch: plan.epoch, source: plan.source, destination: plan.destination };
    const resolution = await resolveEpoch(this.#context.directory, this.#context.connections, epoch, reason);
    if (resolution.outcome === 'aborted' && !plan.migration.concurrent) await undoReverse(this.#context, plan);
    const swap = {
      database,
      peer,
      epoch: plan.epoch,
      serving: sideOf(resolution.serving),
      saveConfig: plan.saveConfig,
    };
    await this.#tellAll(plan, async (node) => {
      await node.swap(swap);
      await node.resume(database, plan.epoch, sideOf(resolution.serving));
    });
    return { outcome: resolution.outcome, reason: resolution.reason ?? reason };
  }

  // ── shared ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Runs a part with the nodes' leases kept alive, and turns a failure into data that names the step. */
  async #part(
    plan: EpochPlan,
    story: Story,
    first: Step,
    work: (at: (step: Step) => void) => Promise<string | null>,
  ): Promise<PartResult> {
    let step = first;
    const shards = [plan.source, plan.destination].flatMap(shardsOf);
    const servers = shards.map((shard) => async () => {
      await (await this.#connection(shard, 'renew')).query(`SELECT 'lease' AS renewing`);
    });
    const { connections, directory } = this.#context;
    // Where a side is not found, the work fails by itself.
    const found = shards.map((shard) => directory.endpointOf(shard));
    const endpoints = await Promise.all(found).catch(() => []);
    const unansweredMs = (): number => Math.max(0, ...endpoints.map((endpoint) => connections.unansweredMs(endpoint)));
    const lease = new LeaseKeeper(this.#nodes(plan), plan, servers, unansweredMs);
    try {
      const working = work((next) => {
        step = next;
      });
      const sealLsn = await Promise.race([working, lease.lost]);
      return { ok: true, events: story.events, sealLsn };
    } catch (error) {
      return { ok: false, events: story.events, step, reason: messageOf(error) };
    } finally {
      lease.end();
    }
  }

  #nodes(plan: EpochPlan): readonly FleetNode[] {
    return this.#context.fleet.nodes(plan.nodes);
  }

  /**
   * Once an epoch is decided, a node that does not answer must not hold the clients of the others back: it asks the record
   * itself when its lease ends, and reads the same decision.
   */
  async #tellAll(plan: EpochPlan, tell: (node: FleetNode) => Promise<void>): Promise<void> {
    const nodes = this.#nodes(plan);
    const told = await Promise.allSettled(nodes.map(tell));
    const problems = told.flatMap((outcome) => (outcome.status === 'rejected' ? [messageOf(outcome.reason)] : []));
    if (nodes.length > 0 && problems.length === nodes.length)
      throw new CutoverError('node_unreachable', {
        node: nodes.map(({ name }) => name).join(', '),
        problem: problems.join('; '),
      });
  }

  async #decision(plan: EpochPlan): Promise<Decision> {
    const state = await readRecord(await this.#connection(plan.source, 'record'));
    const decision = state?.decisions.find((d) => d.epoch === plan.epoch);
    if (!decision) throw new CutoverError('epoch_closed', { epoch: plan.epoch, state: 'unknown' });
    return decision;
  }

  async #connection(side: Side, purpose: Purpose): Promise<Connection> {
    return this.#context.connections.get(await this.#context.directory.endpointOf(side), purpose);
  }
}

/** What a subscription must have applied: the marker of the seal of the shard it comes from. */
function markOf(plan: EpochPlan, { name, publisher, from }: Stream, seals: readonly Sealed[]): SealMark {
  const sealed = seals[from];
  invariant(sealed, 'every shard of the source has been sealed');
  const { epoch, nonce, applyProblems = null } = plan;
  return {
    subscription: name,
    cluster: publisher.systemIdentifier,
    shard: from,
    epoch,
    nonce,
    ...sealed,
    applyProblems: typeof applyProblems === 'object' ? (applyProblems?.[name] ?? null) : applyProblems,
  };
}
