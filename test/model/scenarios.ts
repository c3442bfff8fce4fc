/**
 * One task: the bounds within which the whole protocol is explored: `npm run model` all of them, `npm test` the small ones.
 *
 * Two of everything at once would be hundreds of millions of states, so each scenario is wide in one direction.
 */
import type { Guard } from './guards.js';
import type { Bounds } from './state.js';

export interface Scenario {
  readonly name: string;
  readonly bounds: Bounds;
  /** left out on purpose: what a scenario needs no guard for, it must hold without */
  readonly without?: readonly Guard[];
  /** explored by `npm test` too */
  readonly small: boolean;
}

const BASE: Bounds = {
  nodes: 1,
  shards: 1,
  attempts: 2,
  writes: 1,
  next: 'either',
  nodeCrashes: true,
  failover: false,
  finalize: false,
  remove: false,
  openTransactions: false,
};

export const SCENARIOS: readonly Scenario[] = [
  { name: 'two nodes, one epoch, two writes', small: true, bounds: { ...BASE, nodes: 2, attempts: 1, writes: 2 } },
  { name: 'two epochs', small: true, bounds: BASE },
  { name: 'two nodes, two epochs', small: false, bounds: { ...BASE, nodes: 2 } },
  { name: 'two epochs, two writes', small: false, bounds: { ...BASE, writes: 2 } },
  { name: 'three nodes, one epoch', small: true, bounds: { ...BASE, nodes: 3, attempts: 1 } },
  { name: 'transactions that stay open', small: true, bounds: { ...BASE, writes: 2, openTransactions: true } },
  { name: 'the migration is finalized', small: true, bounds: { ...BASE, finalize: true } },
  { name: 'the migration is removed', small: false, bounds: { ...BASE, remove: true } },
  { name: 'two shards, two nodes, one epoch', small: true, bounds: { ...BASE, shards: 2, nodes: 2, attempts: 1 } },
  { name: 'two shards, abort then retry', small: false, bounds: { ...BASE, shards: 2, next: 'retry' } },
  {
    name: 'A fails over, one epoch, two writes',
    small: true,
    bounds: { ...BASE, failover: true, attempts: 1, writes: 2 },
  },
  {
    name: 'A fails over, two nodes, one epoch',
    small: false,
    bounds: { ...BASE, failover: true, nodes: 2, attempts: 1 },
  },
  {
    name: 'A fails over, two nodes, commit then rollback',
    small: false,
    bounds: { ...BASE, failover: true, nodes: 2, nodeCrashes: false, next: 'rollback' },
  },
  { name: 'A fails over, two epochs', small: false, bounds: { ...BASE, failover: true } },
  {
    name: 'no fence, and no node dies',
    small: true,
    bounds: { ...BASE, nodes: 2, attempts: 1, nodeCrashes: false },
    without: ['fence'],
  },
];
