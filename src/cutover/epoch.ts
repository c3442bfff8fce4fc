/**
 * One task: the life of one epoch (one attempt to move the traffic), as a total transition table.
 *
 * `decide(state, command)` answers the events a command causes, `evolve(state, event)` the state after an event; both are
 * pure. Any step may come again after any later step (docs/protocol.md, section 1): `repeat` says that the step
 * finds its work done, `refuse` that it must not be done any more. SPEC.md shows the same table; a test compares them.
 */
import { invariant } from '../errors/invariant.js';

export const PHASES = [
  'preparing',
  'paused',
  'sealed',
  'level',
  'numbered',
  'ready',
  'committed',
  'swapped',
  'resumed',
  'aborted',
  'returned',
] as const;
export type Phase = (typeof PHASES)[number];

/** The eight steps in their order; the names of the functions in activities/critical-section.ts. */
export const STEPS = [
  'pauseTraffic',
  'sealSource',
  'awaitParity',
  'advanceSequences',
  'createReverseReplication',
  'commitCutover',
  'swapConfiguration',
  'resumeTraffic',
] as const;
export type Step = (typeof STEPS)[number];

/** What each step does, as a plan or a screen says it. */
export const STEP_TITLES: Readonly<Record<Step, string>> = {
  pauseTraffic: 'every node closes its gate and answers when its transactions have ended',
  sealSource: 'writers are waited for and barred, marker and decision written, the fence goes up',
  awaitParity: "the destination has applied and flushed this seal's marker",
  advanceSequences: "the destination's sequences end past the source's",
  createReverseReplication: 'a canary written at the destination has arrived at the source',
  commitCutover: 'sealed becomes committed: the point of no return; the destination opens',
  swapConfiguration: 'every node sets the side that serves, in memory; its files follow once clients are released',
  resumeTraffic: 'gates open; held queries go to the destination',
};

export const COMMANDS = [...STEPS, 'abort', 'returnTraffic'] as const;
export type Command = (typeof COMMANDS)[number];

/** The event each command causes, and the phase each event leads to. */
export const EVENT_OF = {
  pauseTraffic: 'TrafficPaused',
  sealSource: 'SourceSealed',
  awaitParity: 'ParityReached',
  advanceSequences: 'SequencesAdvanced',
  createReverseReplication: 'ReverseReplicationReady',
  commitCutover: 'CutoverCommitted',
  swapConfiguration: 'ConfigurationSwapped',
  resumeTraffic: 'TrafficResumed',
  abort: 'CutoverAborted',
  returnTraffic: 'TrafficReturned',
} as const satisfies Record<Command, string>;
export type EpochEventType = (typeof EVENT_OF)[Command] | 'CutoverBegun';

export const PHASE_AFTER = {
  CutoverBegun: 'preparing',
  TrafficPaused: 'paused',
  SourceSealed: 'sealed',
  ParityReached: 'level',
  SequencesAdvanced: 'numbered',
  ReverseReplicationReady: 'ready',
  CutoverCommitted: 'committed',
  ConfigurationSwapped: 'swapped',
  TrafficResumed: 'resumed',
  CutoverAborted: 'aborted',
  TrafficReturned: 'returned',
} as const satisfies Record<EpochEventType, Phase>;

/** The place of each event in its epoch's stream: fixed, so that writing it again changes nothing. */
export const SEQUENCE_OF = {
  CutoverBegun: 0,
  TrafficPaused: 1,
  SourceSealed: 2,
  ParityReached: 3,
  SequencesAdvanced: 4,
  ReverseReplicationReady: 5,
  CutoverCommitted: 6,
  ConfigurationSwapped: 7,
  TrafficResumed: 8,
  CutoverAborted: 20,
  TrafficReturned: 21,
} as const satisfies Record<EpochEventType, number>;

/** `do`: the step's own work; `repeat`: done before, answer the same; `refuse`: too early or too late. */
export type Outcome = 'do' | 'repeat' | 'refuse';

/* prettier-ignore */
export const TRANSITIONS: Record<Phase, Record<Command, Outcome>> = {
  preparing: { pauseTraffic: 'do',     sealSource: 'refuse', awaitParity: 'refuse', advanceSequences: 'refuse', createReverseReplication: 'refuse', commitCutover: 'refuse', swapConfiguration: 'refuse', resumeTraffic: 'refuse', abort: 'do',     returnTraffic: 'refuse' },
  paused:    { pauseTraffic: 'repeat', sealSource: 'do',     awaitParity: 'refuse', advanceSequences: 'refuse', createReverseReplication: 'refuse', commitCutover: 'refuse', swapConfiguration: 'refuse', resumeTraffic: 'refuse', abort: 'do',     returnTraffic: 'refuse' },
  sealed:    { pauseTraffic: 'repeat', sealSource: 'repeat', awaitParity: 'do',     advanceSequences: 'refuse', createReverseReplication: 'refuse', commitCutover: 'refuse', swapConfiguration: 'refuse', resumeTraffic: 'refuse', abort: 'do',     returnTraffic: 'refuse' },
  level:     { pauseTraffic: 'repeat', sealSource: 'repeat', awaitParity: 'repeat', advanceSequences: 'do',     createReverseReplication: 'refuse', commitCutover: 'refuse', swapConfiguration: 'refuse', resumeTraffic: 'refuse', abort: 'do',     returnTraffic: 'refuse' },
  numbered:  { pauseTraffic: 'repeat', sealSource: 'repeat', awaitParity: 'repeat', advanceSequences: 'repeat', createReverseReplication: 'do',     commitCutover: 'refuse', swapConfiguration: 'refuse', resumeTraffic: 'refuse', abort: 'do',     returnTraffic: 'refuse' },
  ready:     { pauseTraffic: 'repeat', sealSource: 'repeat', awaitParity: 'repeat', advanceSequences: 'repeat', createReverseReplication: 'repeat', commitCutover: 'do',     swapConfiguration: 'refuse', resumeTraffic: 'refuse', abort: 'do',     returnTraffic: 'refuse' },
  committed: { pauseTraffic: 'repeat', sealSource: 'repeat', awaitParity: 'repeat', advanceSequences: 'repeat', createReverseReplication: 'repeat', commitCutover: 'repeat', swapConfiguration: 'do',     resumeTraffic: 'refuse', abort: 'refuse', returnTraffic: 'refuse' },
  swapped:   { pauseTraffic: 'repeat', sealSource: 'repeat', awaitParity: 'repeat', advanceSequences: 'repeat', createReverseReplication: 'repeat', commitCutover: 'repeat', swapConfiguration: 'repeat', resumeTraffic: 'do',     abort: 'refuse', returnTraffic: 'refuse' },
  resumed:   { pauseTraffic: 'repeat', sealSource: 'repeat', awaitParity: 'repeat', advanceSequences: 'repeat', createReverseReplication: 'repeat', commitCutover: 'repeat', swapConfiguration: 'repeat', resumeTraffic: 'repeat', abort: 'refuse', returnTraffic: 'refuse' },
  aborted:   { pauseTraffic: 'refuse', sealSource: 'refuse', awaitParity: 'refuse', advanceSequences: 'refuse', createReverseReplication: 'refuse', commitCutover: 'refuse', swapConfiguration: 'refuse', resumeTraffic: 'refuse', abort: 'repeat', returnTraffic: 'do' },
  returned:  { pauseTraffic: 'refuse', sealSource: 'refuse', awaitParity: 'refuse', advanceSequences: 'refuse', createReverseReplication: 'refuse', commitCutover: 'refuse', swapConfiguration: 'refuse', resumeTraffic: 'refuse', abort: 'repeat', returnTraffic: 'repeat' },
};

export interface EpochEvent {
  readonly type: EpochEventType;
  readonly data: Readonly<Record<string, unknown>>;
}

export interface EpochState {
  readonly epoch: number;
  readonly phase: Phase;
  /** milliseconds each finished step took */
  readonly stepMs: Partial<Record<Step, number>>;
  /** why it was aborted, or by whose leave it was committed without parity */
  readonly reason: string | null;
}

export class StepRefused extends Error {
  override readonly name = 'StepRefused';
  constructor(
    readonly command: Command,
    readonly phase: Phase,
  ) {
    super(`${command} is refused: the epoch is ${phase}`);
  }
}

export function begun(epoch: number): EpochState {
  return { epoch, phase: 'preparing', stepMs: {}, reason: null };
}

/**
 * The events a finished command causes in `state`: one for `do`, none for `repeat`.
 *
 * @param data what the step has to tell: `ms`, LSNs, counts, a reason
 * @throws StepRefused when the table says `refuse`
 */
export function decide(state: EpochState, command: Command, data: EpochEvent['data'] = {}): readonly EpochEvent[] {
  const outcome = TRANSITIONS[state.phase][command];
  switch (outcome) {
    case 'do':
      return [{ type: EVENT_OF[command], data }];
    case 'repeat':
      return [];
    case 'refuse':
      throw new StepRefused(command, state.phase);
  }
}

/**
 * The state after `event`. Total: an event that repeats an earlier phase changes nothing.
 *
 * @throws InvariantViolation when the story holds both decisions
 */
export function evolve(state: EpochState, event: EpochEvent): EpochState {
  const phase = PHASE_AFTER[event.type];
  const aborted = state.phase === 'aborted' || state.phase === 'returned';
  const committed = state.phase === 'committed' || state.phase === 'swapped' || state.phase === 'resumed';
  invariant(!(aborted && phase === 'committed'), 'I3: an aborted epoch was committed');
  invariant(!(committed && phase === 'aborted'), 'I3: a committed epoch was aborted');
  if (SEQUENCE_OF[event.type] < sequenceOfPhase(state.phase)) return state;
  const step = STEPS.find((s) => EVENT_OF[s] === event.type);
  const ms = event.data.ms;
  const reason = event.data.reason;
  return {
    epoch: state.epoch,
    phase,
    stepMs: step !== undefined && typeof ms === 'number' ? { ...state.stepMs, [step]: ms } : state.stepMs,
    reason: typeof reason === 'string' ? reason : state.reason,
  };
}

function sequenceOfPhase(phase: Phase): number {
  const type = (Object.keys(PHASE_AFTER) as EpochEventType[]).find((t) => PHASE_AFTER[t] === phase);
  invariant(type, `no event leads to ${phase}`);
  return SEQUENCE_OF[type];
}

/** The stream of an epoch's events in `cutover.event`. */
export function epochStream(migration: string, epoch: number): string {
  return `${migration}@${epoch.toString()}`;
}

/**
 * How long clients were held: from the first node closing its gate to the last one opening it, by the monotonic clock of the
 * process that ran the steps. Where another one went on within the pause, and for an aborted attempt, whose end is told by
 * Temporal's clock, it is as exact as those clocks agree. Null when the story has no beginning or no end.
 */
export function pausedMsOf(events: readonly EpochEvent[]): number | null {
  const at = (type: EpochEventType): number => {
    const value = events.find((e) => e.type === type)?.data.at;
    return typeof value === 'string' ? Date.parse(value) : NaN;
  };
  const end = [at('TrafficResumed'), at('TrafficReturned')].find((ms) => !Number.isNaN(ms)) ?? NaN;
  const pausedMs = end - at('TrafficPaused');
  return Number.isNaN(pausedMs) ? null : pausedMs;
}
