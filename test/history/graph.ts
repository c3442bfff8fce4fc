/** One task: find the cycles of a directed graph whose nodes are numbers. */

export type Successors = (node: number) => readonly number[];

/** Edges looked at for one cycle: enough to find a short one, few enough to end in about a second. */
const SEARCH_STEPS_MAX = 3_000_000;

interface Visit {
  readonly node: number;
  readonly successors: readonly number[];
  next: number;
}

/**
 * The strongly connected components with more than one node: each holds at least one cycle, and every cycle over more
 * than one node is within one of them. R. Tarjan, "Depth-first search and linear graph algorithms" (1972), with a stack of
 * its own instead of recursion, since a history has more transactions than a call stack has frames.
 */
export function cyclicComponents(nodes: Iterable<number>, successors: Successors): readonly (readonly number[])[] {
  const index = new Map<number, number>();
  const low = new Map<number, number>();
  const onStack = new Set<number>();
  const stack: number[] = [];
  const components: number[][] = [];
  const lower = (node: number, value: number): void => {
    low.set(node, Math.min(low.get(node) ?? value, value));
  };
  const enter = (node: number): Visit => {
    index.set(node, index.size);
    lower(node, index.size - 1);
    stack.push(node);
    onStack.add(node);
    return { node, successors: successors(node), next: 0 };
  };
  const leave = (node: number): void => {
    if (low.get(node) !== index.get(node)) return;
    const component = stack.splice(stack.lastIndexOf(node));
    for (const member of component) onStack.delete(member);
    if (component.length > 1) components.push(component);
  };
  for (const root of nodes) {
    if (index.has(root)) continue;
    const path = [enter(root)];
    for (let visit = path.at(-1); visit; visit = path.at(-1)) {
      const successor = visit.successors[visit.next++];
      if (successor === undefined) {
        path.pop();
        leave(visit.node);
        const parent = path.at(-1);
        if (parent) lower(parent.node, low.get(visit.node) ?? Infinity);
      } else if (!index.has(successor)) path.push(enter(successor));
      else if (onStack.has(successor)) lower(visit.node, index.get(successor) ?? Infinity);
    }
  }
  return components;
}

/** A node from which a way that began at `start` may close into a cycle. */
export type Closes = (node: number, start: number) => boolean;

/**
 * The shortest way within a component of {@link cyclicComponents} that `closes`, its first node first; empty when there is
 * none. In a component so large that the search has to end before all its nodes were tried, as short as any found by then.
 */
export function shortestCycle(component: readonly number[], successors: Successors, closes: Closes): readonly number[] {
  const members = new Set(component);
  const within: Successors = (node) => successors(node).filter((next) => members.has(next));
  const budget = { steps: SEARCH_STEPS_MAX };
  let shortest: readonly number[] = [];
  for (const start of component) {
    const limit = shortest.length === 0 ? Infinity : shortest.length;
    shortest = shortestWay(start, within, closes, limit, budget) ?? shortest;
    if (shortest.length === 2 || budget.steps <= 0) break;
  }
  return shortest;
}

/** Breadth first, over fewer than `limit` nodes. */
function shortestWay(
  start: number,
  successors: Successors,
  closes: Closes,
  limit: number,
  budget: { steps: number },
): readonly number[] | undefined {
  const cameFrom = new Map<number, number | undefined>([[start, undefined]]);
  let level = [start];
  for (let nodes = 1; level.length > 0 && nodes < limit && budget.steps > 0; nodes++) {
    const following: number[] = [];
    for (const node of level) {
      if (node !== start && closes(node, start)) return wayTo(node, cameFrom);
      for (const next of successors(node)) {
        budget.steps--;
        if (cameFrom.has(next)) continue;
        cameFrom.set(next, node);
        following.push(next);
      }
    }
    level = following;
  }
  return undefined;
}

function wayTo(last: number, cameFrom: ReadonlyMap<number, number | undefined>): readonly number[] {
  const way: number[] = [];
  for (let node: number | undefined = last; node !== undefined; node = cameFrom.get(node)) way.push(node);
  return way.reverse();
}
