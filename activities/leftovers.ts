/**
 * One task: find what moves whose workflow is gone have left behind, and remove it by the functions that end a move.
 *
 * Only what is certain is removed: Temporal has said that no workflow is in charge, and the record says which side serves. The
 * fence of a side that does not serve stays as it is.
 */
import { preparedFiles, removePrepared } from '../src/config/prepared-files.js';
import { sameSide, shardsOf, sideKey, type Side } from '../src/cutover/side.js';
import { CutoverError, messageOf } from '../src/errors/errors.js';
import { resolveEpoch } from '../src/fleet/resolution.js';
import type { Connection } from '../src/postgres/connection.js';
import { madeHere, type Claim, type MadeHere, type MadeObject, type ObjectKind } from '../src/postgres/leftovers.js';
import { setActive } from '../src/postgres/migrations.js';
import { NEW_TABLES_TRIGGER } from '../src/postgres/new-tables.js';
import { restoreIdentities } from '../src/postgres/prepared-identity.js';
import { forgetRanges } from '../src/postgres/ranges/ledger.js';
import { dropPublication, dropReplicationRole, dropSlot, dropSubscription } from '../src/postgres/streams.js';
import { connectionTo, type EngineContext } from './context.js';
import { disarmShard, finalizeMigration, removeMigration } from './ending.js';
import { destinationServes, toMigration } from './situation.js';

/** `unknown`: nobody could be asked, so it stays. */
export type Verdict = 'left over' | 'in use' | 'unknown';

export interface Finding {
  /** the configured database it stands in, or `files` */
  readonly place: string;
  /** what it is, with its name */
  readonly what: string;
  readonly verdict: Verdict;
  /** in words: who is in charge, or why it is taken for left over */
  readonly why: string;
}

export interface Diagnosis {
  readonly findings: readonly Finding[];
  /** databases that could not be looked into, and Temporal where it did not answer: a sentence each */
  readonly problems: readonly string[];
}

export interface Removal {
  /** what remains to be seen after the removal */
  readonly after: Diagnosis;
  /** what could not be removed and why: a sentence each */
  readonly failures: readonly string[];
}

/** One configured database that answered. */
interface Place extends MadeHere {
  readonly name: string;
}

/** A migration of which something is left, and what is known of it. */
interface Suspect {
  readonly id: string;
  readonly claim: Claim | null;
  readonly verdict: Verdict;
  readonly why: string;
}

interface Survey {
  readonly places: readonly Place[];
  readonly suspects: readonly Suspect[];
  readonly files: readonly string[];
  readonly problems: readonly string[];
  readonly temporalAnswers: boolean;
}

/** Looks only. */
export async function diagnose(context: EngineContext): Promise<Diagnosis> {
  return tell(await survey(context));
}

/** Removes what is certainly left over; may be called again. A failure with one migration does not keep the others. */
export async function removeLeftovers(context: EngineContext): Promise<Removal> {
  const failures: string[] = [];
  const before = await survey(context);
  for (const suspect of before.suspects) {
    if (suspect.verdict !== 'left over') continue;
    await removeSuspect(context, before, suspect).catch((error: unknown) => {
      failures.push(`migration ${suspect.id}: ${messageOf(error)}`);
    });
  }
  // Slots of single tables and fence triggers are nobody's only once their migrations are gone.
  const between = await survey(context);
  for (const place of between.places)
    await removeRest(context, between, place).catch((error: unknown) => {
      failures.push(`${place.name}: ${messageOf(error)}`);
    });
  if (filesVerdict(between) === 'left over') await removePrepared(between.files);
  return { after: await diagnose(context), failures };
}

async function survey(context: EngineContext): Promise<Survey> {
  const places: Place[] = [];
  const problems: string[] = [];
  for (const { name, shard } of context.directory.places) {
    const place = shard === 0 ? name : `${name} shard ${shard.toString()}`;
    try {
      const made = await madeHere(await context.connections.get(context.directory.endpoint(name, shard), 'record'));
      if (!places.some((known) => sameSide(known.identity, made.identity))) places.push({ name: place, ...made });
    } catch (error) {
      problems.push(`database "${place}" cannot be looked into: ${messageOf(error)}`);
    }
  }
  const temporal = await temporalProblem(context);
  const allAnswered = problems.length === 0;
  if (temporal !== null) problems.push(temporal);
  const suspects: Suspect[] = [];
  for (const id of migrationsIn(places)) {
    const claim = claimOf(places, id);
    suspects.push({ id, claim, ...(await judge(context, claim, temporal === null, allAnswered)) });
  }
  const { files } = context.config();
  return {
    ...{ places, suspects, problems, temporalAnswers: temporal === null },
    files: files ? await preparedFiles(files) : [],
  };
}

/** No workflow has this name: the question is whether Temporal answers. */
const NOBODY = 'cutover-doctor';

async function temporalProblem(context: EngineContext): Promise<string | null> {
  try {
    await context.isRunning(NOBODY);
    return null;
  } catch (error) {
    return `whether a workflow is gone cannot be said, so nothing is removed: ${messageOf(error)}`;
  }
}

function migrationsIn(places: readonly Place[]): readonly string[] {
  const ids = places.flatMap((place) => [
    ...place.objects.flatMap((object) => object.migration ?? []),
    ...place.claims.flatMap((claim) => (claim.active ? claim.id : [])),
  ]);
  return [...new Set(ids)].sort();
}

/** The row of a migration, from whichever side has it; one that is not over says more. */
function claimOf(places: readonly Place[], id: string): Claim | null {
  const rows = places.flatMap((place) => place.claims.filter((claim) => claim.id === id));
  return rows.find((claim) => claim.active) ?? rows[0] ?? null;
}

async function judge(
  context: EngineContext,
  claim: Claim | null,
  temporalAnswers: boolean,
  allAnswered: boolean,
): Promise<{ verdict: Verdict; why: string }> {
  if (!temporalAnswers) return { verdict: 'unknown', why: 'Temporal was not asked' };
  if (claim === null)
    return allAnswered
      ? { verdict: 'left over', why: 'no record tells of its migration' }
      : { verdict: 'unknown', why: 'its record may be where nobody answers' };
  const holder = await runningHolder(context, claim);
  return holder === null
    ? { verdict: 'left over', why: `its workflow ${claim.owner} is gone` }
    : { verdict: 'in use', why: `workflow ${holder} runs` };
}

async function runningHolder(context: EngineContext, { owner, operation }: Claim): Promise<string | null> {
  for (const id of [owner, owner.replace(/\/streams$/, ''), ...(operation === null ? [] : [operation])])
    if (await context.isRunning(id)) return id;
  return null;
}

function tell(seen: Survey): Diagnosis {
  const suspectOf = new Map(seen.suspects.map((suspect) => [suspect.id, suspect]));
  const findings = seen.places.flatMap((place): Finding[] => {
    const named = place.objects.flatMap((object) => {
      const suspect = object.migration === null ? null : suspectOf.get(object.migration);
      const { verdict, why } = suspect ?? judgeTableSlot(seen, place, object) ?? { verdict: null, why: '' };
      const failover = object.failover ? ' (failover)' : '';
      return verdict === null
        ? []
        : [{ place: place.name, what: `${object.kind} ${object.name}${failover}`, verdict, why }];
    });
    const claims = place.claims.flatMap((claim) => {
      const suspect = suspectOf.get(claim.id);
      if (!claim.active || !suspect) return [];
      const what = `claim ${claim.id} of ${claim.database} -> ${claim.peer}`;
      return [{ place: place.name, what, verdict: suspect.verdict, why: suspect.why }];
    });
    const triggers = triggersAreLeft(place)
      ? [
          {
            place: place.name,
            what: fenceOf(place),
            verdict: seen.temporalAnswers ? ('left over' as const) : ('unknown' as const),
            why: 'this side serves and belongs to no migration',
          },
        ]
      : [];
    return [...named, ...claims, ...triggers];
  });
  const files = seen.files.map((path) => ({
    ...{ place: 'files', what: path, verdict: filesVerdict(seen) },
    why: 'prepared for a switch that did not come',
  }));
  return { findings: [...findings, ...files], problems: seen.problems };
}

/** Any move that runs may be about to rename its prepared files into place. */
function filesVerdict(seen: Survey): Verdict {
  if (!seen.temporalAnswers) return 'unknown';
  return seen.suspects.some((suspect) => suspect.verdict !== 'left over') ? 'in use' : 'left over';
}

function fenceOf({ fencedTables, fencesNewTables }: Place): string {
  const onTables = `fence triggers on ${fencedTables.toString()} tables`;
  return fencesNewTables ? `${onTables}, event trigger ${NEW_TABLES_TRIGGER}` : onTables;
}

/** The fence is down and nothing will raise it: on the side that does not serve it is up, and stays. */
function triggersAreLeft({ record, claims, fencedTables, fencesNewTables }: Place): boolean {
  const serves = record !== null && record.fence.state === 'open' && !record.fence.up;
  return (fencedTables > 0 || fencesNewTables) && serves && !claims.some((claim) => claim.active);
}

/** The slot of one table's copy outlives a subscription that was removed while its publisher did not answer. */
function judgeTableSlot(
  seen: Survey,
  place: Place,
  { subscriber, subscription, inUse }: MadeObject,
): { verdict: Verdict; why: string } | null {
  const ours = place.claims.some((claim) =>
    [claim.source, claim.destination].flatMap(shardsOf).some((side) => side.systemIdentifier === subscriber),
  );
  if (!ours) return null;
  if (inUse) return { verdict: 'in use', why: 'somebody is connected to it' };
  const subscribers = seen.places.filter(({ identity }) => identity.systemIdentifier === subscriber);
  if (subscribers.length === 0 || !seen.temporalAnswers)
    return { verdict: 'unknown', why: 'its subscriber could not be asked' };
  const wanted = subscribers.some(({ objects }) =>
    objects.some((other) => other.kind === 'subscription' && other.subscription === subscription),
  );
  return wanted
    ? { verdict: 'in use', why: 'its subscription is there' }
    : { verdict: 'left over', why: 'its subscription is gone' };
}

async function removeSuspect(context: EngineContext, seen: Survey, suspect: Suspect): Promise<void> {
  const { id, claim } = suspect;
  // Asked again: a move may have been started while others were removed.
  if (claim !== null && (await runningHolder(context, claim)) !== null) return;
  if (claim?.active === true) {
    const sides = [claim.source, claim.destination].flatMap(shardsOf);
    const missing = sides.filter((side) => !seen.places.some((place) => sameSide(place.identity, side)));
    if (missing.length === 0) await endWhole(context, claim);
    else for (const place of placesOf(seen, sides)) await settle(context, place, missing);
  }
  const touched = seen.places.filter(
    (place) =>
      place.objects.some((object) => object.migration === id) ||
      place.claims.some((row) => row.id === id && row.active),
  );
  await removeStreamsAt(context, touched, id);
  for (const place of touched)
    if (place.record !== null) await setActive(await connectionTo(context, place.identity), id, false);
}

/** Both sides answer: it ends as STOP_TASK would have ended it. */
async function endWhole(context: EngineContext, claim: Claim): Promise<void> {
  const migration = await toMigration(context, claim);
  if (await destinationServes(context, migration)) await finalizeMigration(context, migration);
  else await removeMigration(context, migration);
}

function placesOf(seen: Survey, sides: readonly Side[]): readonly Place[] {
  return seen.places.filter((place) => sides.some((side) => sameSide(place.identity, side)));
}

/**
 * One side is gone. What the other one decides by itself is decided; what only the missing one can say keeps everything as it is.
 *
 * @throws CutoverError `record_unreachable`
 */
async function settle(context: EngineContext, place: Place, missing: readonly Side[]): Promise<void> {
  const { record, name } = place;
  if (record?.fence.state === 'ready')
    throw new CutoverError('record_unreachable', {
      database: name,
      problem: `only the side ${missing.map(sideKey).join()}, which does not answer, knows whether epoch ${record.fence.epoch.toString()} was committed`,
    });
  for (const { epoch, state, database, source, destination } of record?.decisions ?? [])
    if ((state === 'preparing' || state === 'sealed') && sameSide(source, place.identity))
      await resolveEpoch(
        context.directory,
        context.connections,
        { database, epoch, source, destination },
        'its engine is gone',
      );
}

/** Takes an object away by its name; may find it gone. The slot of one table's copy is not a migration's. */
const DROP: Readonly<
  Record<Exclude<ObjectKind, 'replica identity'>, (connection: Connection, name: string) => Promise<void>>
> = {
  subscription: dropSubscription,
  publication: dropPublication,
  slot: dropSlot,
  'table slot': dropSlot,
  role: dropReplicationRole,
};

/** Subscriptions first, so that nobody comes back for a slot. */
async function removeStreamsAt(context: EngineContext, places: readonly Place[], id: string): Promise<void> {
  for (const { identity } of places) await forgetRanges(await connectionTo(context, identity), id);
  for (const kind of ['subscription', 'publication', 'slot', 'role'] as const)
    for (const { identity, objects } of places)
      for (const object of objects)
        if (object.kind === kind && object.migration === id)
          await DROP[kind](await connectionTo(context, identity), object.name);
  // Behind the publications: with one that filters rows the application's UPDATE would be refused.
  for (const { identity, objects } of places)
    if (objects.some(({ kind, migration }) => kind === 'replica identity' && migration === id))
      await restoreIdentities(await connectionTo(context, identity), id);
}

async function removeRest(context: EngineContext, seen: Survey, place: Place): Promise<void> {
  const connection = await connectionTo(context, place.identity);
  for (const object of place.objects)
    if (object.migration === null && judgeTableSlot(seen, place, object)?.verdict === 'left over')
      await dropSlot(connection, object.name);
  if (seen.temporalAnswers && triggersAreLeft(place)) await disarmShard(connection);
}
