/** One task: whatever an operator may have to name has a number in SHOW TASKS, and nothing that ended is missing from it. */
import { describe, expect, test } from 'vitest';
import { initialTask, type TaskKind } from '../../src/cutover/task.js';
import { isRoot, type Task } from '../../src/temporal/task-list.js';

const AT = new Date('2026-11-24T20:00:00Z');

function task(kind: TaskKind, running: boolean, more: { parent?: string; reversed?: boolean } = {}): Task {
  return {
    id: 1,
    workflowId: kind,
    parentWorkflowId: more.parent ?? null,
    state: {
      ...initialTask(kind, 'prod', 'prod_new'),
      reversed: more.reversed ?? false,
      everMoved: more.reversed ?? false,
    },
    startedAt: AT,
    updatedAt: AT,
    running,
    reachable: true,
  };
}

/** The kinds of the tasks that stand on their own. */
function roots(...tasks: Task[]): TaskKind[] {
  return tasks.filter((t) => isRoot(t, tasks)).map((t) => t.state.kind);
}

describe('streams', () => {
  const child = { parent: 'reshard' };

  test('on the way there belong to their move', () => {
    expect(roots(task('reshard', true), task('replication', true, child))).toEqual(['reshard']);
  });

  test('that run back have a number, since a rollback names it', () => {
    const back = task('replication', true, { ...child, reversed: true });
    expect(roots(task('reshard', true), back)).toEqual(['reshard', 'replication']);
  });

  test('whose move was terminated have a number, since nothing else could end them', () => {
    expect(roots(task('reshard', false), task('replication', true, child))).toEqual(['reshard', 'replication']);
  });

  test('that ended with their move belong to it again', () => {
    const ended = task('replication', false, { ...child, reversed: true });
    expect(roots(task('reshard', false), ended)).toEqual(['reshard']);
  });

  test('of REPLICATE, moved and finalized, are still listed', () => {
    expect(roots(task('replication', false, { reversed: true }))).toEqual(['replication']);
  });

  test('whose parent Temporal has forgotten are still listed', () => {
    expect(roots(task('replication', false, child))).toEqual(['replication']);
  });
});

test('a cutover belongs to its move, running or not', () => {
  for (const running of [true, false])
    expect(roots(task('reshard', running), task('cutover', running, { parent: 'reshard' }))).toEqual(['reshard']);
});
