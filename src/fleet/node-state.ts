/** One task: say what a node remembers of a database. */
import type { PreparedFiles } from '../config/save.js';
import type { Side } from '../cutover/side.js';
import type { NodeEpochs, SwapRequest } from './node.js';
import type { Epoch } from './resolution.js';

/** A pause this node holds. */
export interface Hold {
  readonly epoch: Epoch;
  deadline: number;
  timer: NodeJS.Timeout;
}

export interface DatabaseState extends NodeEpochs {
  epochSeen: number;
  epochResolved: number;
  peer: string | null;
  serving: Side | null;
  hold: Hold | null;
  prepared: PreparedFiles | null;
  /** the names to be written into the files once clients are released */
  toSave: SwapRequest | null;
  /** the writing that runs; never rejects */
  saving: Promise<void>;
  recovering: Promise<void> | null;
}

/** Of a database that nobody has said anything about. */
export function unheardOf(): DatabaseState {
  return {
    epochSeen: 0,
    epochResolved: 0,
    peer: null,
    serving: null,
    hold: null,
    prepared: null,
    toSave: null,
    saving: Promise.resolve(),
    recovering: null,
  };
}
