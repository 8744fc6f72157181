/*
 * The protocol of ledger and undo, for Spin. docs/protocol.md says what it shows and what it leaves out.
 *
 * `nicety(0)` is the daemon, `nicety(1)` is `nicety undo` or a sentry, `world` is everybody else. P is a process that is changed, C
 * a child that it forks. Each step of nicety is one system call or one transaction; `world` may move, and kill, between any two.
 * Names in comments are those of scheduler/act and scheduler/hands.
 *
 * The asserted names are the properties. A macro MUTANT_x takes one rule away: benchmarks/house/proof.py has the list.
 */

/* Most faults (kills, failed reads, writes and transactions), changes by somebody else, and niceties. */
#ifndef FAULTS
#define FAULTS 2
#endif
#ifndef CHANGES
#define CHANGES 1
#endif
#ifndef NICETIES
#define NICETIES 1
#endif

/* Values of a knob. Somebody else sets O or F. */
#define O 0
#define A 1 /* our first change */
#define B 2 /* our second change */
#define F 3

/* Knobs: the nice of P and of C. Only P has a child. */
#define P 0
#define C 1

/* Entries: 0 is P := A, 1 is P := B or C := B, 2 is the adoption of C. Statuses; INTENT and DONE are open. */
#define NONE 0
#define INTENT 1
#define DONE 2
#define CLOSED 3 /* UNDONE, GONE or FAILED */
#define FOREIGN 4
#define UNDONE 5 /* only within an undo: becomes CLOSED, or INTENT if heirs are left */
#define open(status) ((status) == INTENT || (status) == DONE)

/* Results of a system call on a knob. */
#define OK 0
#define VANISHED 1
#define UNKNOWN 2 /* an error that says nothing about the target */
#define CHANGED 3 /* not the expected value */

/* The next step of a nicety. */
#define START 0
#define LOOK_BACK 1
#define SETTLE 2
#define ACT 3
#define RECORD_INTENT 4
#define CHECK 5
#define COMPARE 6
#define CALL 7
#define CHECK_AGAIN 8
#define READ_BACK 9
#define RECORD_RESULT 10
#define ADOPT 11
#define CLOSE 12
#define STOP 13
#define FINISHED 14

/* The kernel. `stranger`: P has ended, and somebody else's process has its pid. `natural`: the value without us. */
bool alive[2], stranger, born;
byte val[2], natural[2];

/* The disk: entries. The columns of a row never change, except its status. */
byte disk[3], old[3], new[3], first[3];
bool on1; /* the knob of entry 1 */
byte locked; /* 1 + the number of the nicety that has the lock */

/* The memory of a nicety. */
typedef Nicety {
    byte todo, st[3], good[3]; /* good: what it knows to be on the disk */
    byte r, now, goal; /* of a read or write */
    byte e, k; /* the entry and the knob of this step */
    byte fate[2], verdict;
    bool heirs, put, wrote, left, whole, ok, stopping, undoing;
    byte window; /* for the properties: 1 + the knob that is between compare and write; 3: it was changed meanwhile, or its pid */
    bool pending /* for the properties: a stranger's value was written, and the second check has not been made */
};
Nicety n[2];
#define my n[me]

byte faults = FAULTS, changes = CHANGES, sweeps = 1, finished;
bool tried[2]; /* decisions that were made */

/* What only the properties know. */
bool theirs[2]; /* the value was set by somebody else over ours */

bool intended = true; /* nothing is changed without a durable intent */
bool covered = true; /* what has our value has an open entry on disk: its own or its parent's */
bool foreign_kept = true; /* a value of somebody else is not overwritten, unless it came between compare and write */
bool impostor_unchanged = true; /* a process with a reused pid keeps its value, unless it came between compare and write */
bool nothing_left = true; /* after an undo with nothing open, no living process has our value */
bool undo_idempotent = true; /* undo does not write an original that is there already */
bool memory_is_disk = true; /* after a transaction, the file says what memory says */

#define knob_of(e) ((e) == 0 -> P : ((e) == 1 -> on1 : C))
#define base(knob) ((knob) == P -> 0 : 2) /* the oldest entry of a knob */
#define has1(rows, knob) (open(rows[1]) && on1 == (knob))
#define chain(knob) (has1(my.st, knob) || open(my.st[base(knob)]))
#define original(knob) (has1(my.st, knob) -> first[1] : first[base(knob)])
#define is_foreign(knob) ((my.st[1] == FOREIGN && on1 == (knob)) || my.st[base(knob)] == FOREIGN)
#define here(knob) (alive[knob] && !((knob) == P && stranger))
#define mine(knob) (here(knob) && val[knob] != natural[knob])
#define recorded(knob) (has1(disk, knob) || open(disk[base(knob)]))

/* changes.believed: newest first, down to the first that is known to be done; if none is, the value found. */
#ifdef MUTANT_BELIEVES_THE_NEWEST_ONLY
#define believed(knob, v) ((v) == (has1(my.st, knob) -> new[1] : new[base(knob)]))
#else
#define done1(knob) (has1(my.st, knob) && my.st[1] == DONE)
#define found(knob) (open(my.st[base(knob)]) -> old[base(knob)] : old[1])
#define believed(knob, v) ((has1(my.st, knob) && (v) == new[1]) || (!done1(knob) && \
    ((open(my.st[base(knob)]) && (v) == new[base(knob)]) || (my.st[base(knob)] != DONE && (v) == found(knob)))))
#endif

/* Heirs: a child that has a value of P's chain, and no entry of its own. */
#define from(rows) ((open(rows[0]) && val[C] == new[0]) || (has1(rows, P) && val[C] == new[1]))
#define heir (alive[C] && !chain(C) && !is_foreign(C) && val[C] != original(P) && from(my.st))

#ifdef MUTANT_RESTORES_THE_OLD_VALUE
#define aim(knob) (has1(my.st, knob) -> old[1] : old[base(knob)])
#else
#define aim(knob) original(knob)
#endif

/* --- Ledger ---------------------------------------------------------------------------------------------------------------- */

/* Columns of a row that nobody reads again: fewer states. */
inline drop(e) {
    if :: !open(disk[e]) && !open(my.st[e]) && !open(my.good[e]) -> old[e] = 0; first[e] = 0 :: else fi
}

#define copy(to, rows) to[0] = rows[0]; to[1] = rows[1]; to[2] = rows[2]

/* One transaction. What a failed one leaves behind the good lines is cut off by the next, or read by the next nicety. */
inline flush() {
    if
#ifdef MUTANT_A_FAILED_WRITE_IS_NOT_REPEATED
    :: my.ok = true;
        if :: my.st[0] != my.good[0] -> disk[0] = my.st[0] :: else fi;
        if :: my.st[1] != my.good[1] -> disk[1] = my.st[1] :: else fi;
        if :: my.st[2] != my.good[2] -> disk[2] = my.st[2] :: else fi;
        copy(my.good, my.st);
#else
    :: my.ok = true; copy(disk, my.st); copy(my.good, my.st);
#endif
        memory_is_disk = disk[0] == my.st[0] && disk[1] == my.st[1] && disk[2] == my.st[2];
        assert(memory_is_disk)
    :: faults > 0 -> faults--; my.ok = false
    :: faults > 0 -> faults--; my.ok = false; copy(disk, my.good) /* cut, and not written */
    :: faults > 0 -> faults--; my.ok = false; copy(disk, my.st) /* written, and not known to be */
    fi;
#ifdef MUTANT_A_FAILED_WRITE_IS_NOT_REPEATED
    copy(my.good, my.st);
#endif
    drop(0); drop(1); drop(2);
    covered = (!mine(P) || recorded(P)) && (!mine(C) || recorded(C) || from(disk));
    assert(covered)
}

inline mark(entry, status) {
    my.st[entry] = status
}

inline mark_chain(knob, status) {
    if :: has1(my.st, knob) -> mark(1, status) :: else fi;
    if :: open(my.st[base(knob)]) -> my.st[base(knob)] = status :: else fi
}

/* Ledger.intend: if it fails, memory has nothing of it. */
inline intend(entry, status) {
    mark(entry, status);
    flush();
    if
#ifdef MUTANT_A_FAILED_INTENT_IS_NO_ERROR
    :: !my.ok -> my.ok = true
#else
    :: !my.ok -> my.st[entry] = NONE
#endif
    :: else
    fi
}

inline rest() {
    my.r = 0; my.now = 0; my.goal = 0; my.e = 0; my.k = 0; my.verdict = 0; my.put = false; my.wrote = false; my.ok = false;
    my.whole = false
}

/* --- Kernel ---------------------------------------------------------------------------------------------------------------- */

#ifdef MUTANT_A_PID_IS_AN_IDENTITY
#define same(knob) alive[knob]
#else
#define same(knob) here(knob)
#endif

/* LinuxKernel.read of knob k: the identity is checked before and after, so this is one step. */
inline read() {
    if
    :: same(my.k) -> my.r = OK; my.now = val[my.k]
    :: !same(my.k) -> my.r = VANISHED
    :: faults > 0 -> faults--; my.r = UNKNOWN
    fi;
#ifdef MUTANT_UNKNOWN_IS_GONE
    if :: my.r == UNKNOWN -> my.r = VANISHED :: else fi
#endif
}

/* LinuxKernel._write_thread, in four steps: knob k from `now` to `goal`, the result is in r. */
#define back (my.undoing -> LOOK_BACK : READ_BACK)

inline check() {
    my.wrote = false;
    if
    :: same(my.k) -> my.todo = COMPARE
    :: !same(my.k) -> my.r = VANISHED; my.todo = back
    :: faults > 0 -> faults--; my.r = UNKNOWN; my.todo = back
    fi
}

inline compare() {
    my.window = 1 + my.k;
    if
    :: !alive[my.k] -> my.r = VANISHED; my.todo = back; my.window = 0
#ifdef MUTANT_NO_COMPARE_BEFORE_THE_WRITE
    :: alive[my.k] && (here(my.k) || val[my.k] == my.now) -> my.todo = CALL
    :: alive[my.k] && !here(my.k) && val[my.k] != my.now -> my.r = VANISHED; my.todo = back; my.window = 0
#else
    :: alive[my.k] && val[my.k] == my.now -> my.todo = CALL
    :: alive[my.k] && val[my.k] != my.now -> my.r = (same(my.k) -> CHANGED : VANISHED); my.todo = back; my.window = 0
#endif
    fi
}

#ifdef NO_WINDOW
#define excused false
#else
#define excused (my.window == 3)
#endif

/* setpriority(2). What is overwritten in the window between compare and write is lost: the kernel offers no closed one. */
inline call() {
    if
    :: !alive[my.k] -> my.r = VANISHED; my.todo = back; my.window = 0
    :: faults > 0 -> faults--; my.r = UNKNOWN; my.todo = back; my.window = 0
    :: alive[my.k] ->
        foreign_kept = !here(my.k) || (val[my.k] == my.now && !theirs[my.k]) || excused;
        assert(foreign_kept);
        undo_idempotent = !my.undoing || val[my.k] != my.goal || my.window == 3;
        assert(undo_idempotent);
        intended = my.undoing || recorded(my.k);
        assert(intended);
        if
        :: here(my.k) && val[my.k] != my.now -> /* a hole that is known */
            natural[my.k] = (chain(my.k) -> original(my.k) : original(P)); theirs[my.k] = false
        :: !here(my.k) -> my.pending = true
        :: else
        fi;
        val[my.k] = my.goal;
        if :: my.window != 3 -> my.window = 0 :: else fi;
        my.wrote = true; my.r = OK; my.todo = CHECK_AGAIN
    fi
}

inline check_again() {
    if
#ifndef MUTANT_NO_SECOND_CHECK
    :: !same(my.k) ->
        my.r = VANISHED;
        if
        :: alive[my.k] && val[my.k] == my.goal -> val[my.k] = my.now
        :: else
        fi
#endif
    :: else
    fi;
    if
    :: my.pending ->
        impostor_unchanged = my.window == 3 || !alive[P] || val[P] == natural[P];
        assert(impostor_unchanged);
        natural[P] = val[P]; /* a hole that is known */
        my.pending = false
    :: else
    fi;
    my.window = 0; my.todo = back
}

/* --- undo and Restorer: C, then P, then what C inherited from P ------------------------------------------------------------ */

inline begin_undo() {
    my.undoing = true; my.k = C; my.heirs = false; my.put = false; my.wrote = false; my.left = false; my.r = OK;
#ifdef MUTANT_UNDO_SKIPS_INTENTS
    if :: my.st[0] == INTENT -> mark(0, CLOSED) :: else fi;
    if :: my.st[1] == INTENT -> mark(1, CLOSED) :: else fi;
#endif
    my.todo = LOOK_BACK
}

inline next_knob(status) {
    my.fate[my.k] = status;
#ifdef MUTANT_CLOSES_BEFORE_THE_HEIRS
    if :: my.k == P && status == UNDONE -> mark_chain(P, CLOSED); flush() :: else fi;
#endif
    my.put = false; my.wrote = false; my.r = OK;
    if
    :: my.k == C -> my.k = P
    :: my.k == P && status == NONE -> my.todo = SETTLE
    :: my.k == P && status != NONE -> my.heirs = true; my.k = C;
#ifdef MUTANT_NO_HEIRS
        my.todo = SETTLE
#endif
    fi
}

/* Restorer._put_knob_back, one pass. */
inline look_at_knob() {
    if
    :: my.r == OK || my.r == CHANGED -> read()
    :: else
    fi;
    if
    :: my.r == UNKNOWN && my.put -> next_knob(INTENT)
    :: my.r == UNKNOWN && !my.put -> next_knob(NONE)
    :: my.r == VANISHED -> next_knob(CLOSED)
#ifdef MUTANT_WRITES_ANYWAY
    :: my.r == OK && my.now == aim(my.k) && my.put -> next_knob(UNDONE)
    :: my.r == OK && my.now == aim(my.k) && !my.put -> my.goal = aim(my.k); my.todo = CHECK
#else
    :: my.r == OK && my.now == aim(my.k) -> theirs[my.k] = false; next_knob(UNDONE)
#endif
#ifdef MUTANT_RESTORES_WHATEVER_IS_THERE
    :: my.r == OK && my.now != aim(my.k) -> my.goal = aim(my.k); my.todo = CHECK
#else
    :: my.r == OK && my.now != aim(my.k) && believed(my.k, my.now) -> my.goal = aim(my.k); my.todo = CHECK
#ifdef MUTANT_WAITS_FOR_ITS_VALUE
    :: my.r == OK && my.now != aim(my.k) && !believed(my.k, my.now) -> my.r = CHANGED
#else
    :: my.r == OK && my.now != aim(my.k) && !believed(my.k, my.now) -> next_knob(FOREIGN)
#endif
#endif
    fi
}

/* Restorer._put_heirs_back, one pass. */
inline look_for_heirs() {
    if
    :: my.r == UNKNOWN -> my.left = true; my.todo = SETTLE
    :: faults > 0 -> faults--; my.left = true; my.todo = SETTLE /* not all processes could be read */
    :: my.r != UNKNOWN && !heir -> my.todo = SETTLE
    :: my.r != UNKNOWN && heir -> my.now = val[C]; my.goal = original(P); my.r = OK; my.todo = CHECK
    fi
}

/* What was written in the pass before stays noted; then the next look. */
inline look_back() {
    my.put = my.put || (my.wrote && my.r == OK); my.wrote = false;
    if
    :: my.heirs -> look_for_heirs()
    :: !my.heirs && my.k == C && !chain(C) && !chain(P) -> my.todo = SETTLE
    :: !my.heirs && my.k == C && !chain(C) && chain(P) -> next_knob(NONE); look_at_knob()
    :: !my.heirs && my.k == P && !chain(P) -> my.todo = SETTLE
    :: !my.heirs && chain(my.k) -> look_at_knob()
    fi
}

/* Ledger.settle: in memory always, on disk if it can be. Closed entries are closed only now, after the heirs. */
inline settle_undo() {
    if
    :: my.left && my.fate[P] == UNDONE -> my.fate[P] = INTENT
    :: my.left && my.fate[P] != UNDONE -> my.fate[P] = NONE
    :: else
    fi;
    if :: my.fate[C] == UNDONE -> my.fate[C] = CLOSED :: else fi;
    if :: my.fate[P] == UNDONE -> my.fate[P] = CLOSED :: else fi;
    if :: my.fate[C] != NONE -> mark_chain(C, my.fate[C]) :: else fi;
    if :: my.fate[P] != NONE -> mark_chain(P, my.fate[P]) :: else fi;
    flush();
    nothing_left = chain(P) || chain(C) || (!mine(P) && !mine(C));
    assert(nothing_left);
    my.undoing = false; my.left = false; my.heirs = false; my.fate[C] = NONE; my.fate[P] = NONE;
    my.todo = (my.stopping -> STOP : ACT);
    rest()
}

/* --- Carrier: look, intent, write, read back, result ----------------------------------------------------------------------- */

inline decide(entry, knob) {
    my.e = entry; my.k = knob; tried[entry] = true;
    read();
    if
    :: my.r == OK && !is_foreign(knob) && chain(knob) && !believed(knob, my.now) ->
        my.verdict = FOREIGN; my.whole = true; my.todo = ADOPT
    :: my.r == OK && !is_foreign(knob) && (!chain(knob) || believed(knob, my.now)) && my.now != new[entry] ->
        if :: entry == 1 -> on1 = knob :: else fi;
        first[entry] = my.now;
        if
        :: chain(knob) -> first[entry] = original(knob)
#ifndef MUTANT_A_CHILD_KEEPS_WHAT_IT_INHERITED
        :: !chain(knob) && knob == C && heir -> first[entry] = original(P)
#endif
        :: else
        fi;
        old[entry] = my.now; my.goal = new[entry];
#ifdef MUTANT_WRITES_BEFORE_THE_INTENT
        my.todo = CHECK
#else
        my.todo = RECORD_INTENT
#endif
    :: else -> rest()
    fi
}

inline record_intent() {
    if
    :: my.e == 0 -> intend(0, INTENT)
    :: my.e == 1 -> intend(1, INTENT)
    fi;
    if
    :: my.ok -> my.todo = CHECK
    :: else -> rest(); my.todo = ACT
    fi
}

/* Carrier._change and _doubt. */
inline read_back() {
    if
    :: my.wrote ->
        my.verdict = DONE;
        if
        :: !here(my.k) /* the sweep looks for its heirs */
        :: faults > 0 -> faults--
        :: here(my.k) && val[my.k] == my.goal
        :: here(my.k) && val[my.k] == my.now -> theirs[my.k] = false; my.verdict = CLOSED /* as if the kernel had not done it */
        :: here(my.k) && val[my.k] != my.goal && val[my.k] != my.now -> my.verdict = FOREIGN
        fi;
#ifdef MUTANT_CLOSES_WHAT_IT_WROTE_WITHOUT_ADOPTION
        if :: !here(my.k) -> my.verdict = CLOSED :: else fi;
#endif
        my.todo = RECORD_RESULT
    :: !my.wrote && (my.r == VANISHED || my.r == CHANGED) -> my.verdict = CLOSED; my.todo = CLOSE
    :: !my.wrote && my.r == UNKNOWN ->
        if
        :: here(my.k) && val[my.k] == my.now -> my.verdict = CLOSED; my.todo = CLOSE
        :: !here(my.k) || val[my.k] != my.now || faults > 0 -> rest(); my.todo = ACT /* it stays an intent */
        fi
    fi
}

/* What was written is recorded as done first; then it is closed like any other change. */
inline record_result() {
#ifdef MUTANT_CLOSES_WHAT_IT_WROTE_WITHOUT_ADOPTION
    my.st[my.e] = my.verdict; my.verdict = DONE;
#else
    my.st[my.e] = DONE;
#endif
    flush();
    my.whole = my.verdict == FOREIGN;
    if
    :: my.verdict == DONE -> rest(); my.todo = ACT
    :: else -> my.todo = ADOPT
    fi
}

/* --- Sweep.step for one knob, and Closing.close: heirs get entries of their own first -------------------------------------- */

inline sweep(knob) {
    sweeps--; my.k = knob;
    read();
    my.whole = true;
    if
    :: my.r == VANISHED -> my.verdict = CLOSED; my.todo = ADOPT
    :: my.r == OK && !believed(knob, my.now) -> my.verdict = FOREIGN; my.todo = ADOPT
    :: else -> rest()
    fi
}

inline adopt() {
    if
    :: my.k == P && faults > 0 -> faults--; rest(); my.todo = ACT /* not all processes could be read */
#ifndef MUTANT_CLOSES_WITHOUT_ADOPTION
    :: my.k == P && heir ->
        new[2] = val[C]; old[2] = val[C]; first[2] = original(P);
        intend(2, DONE);
        if :: my.ok -> my.todo = CLOSE :: else -> rest(); my.todo = ACT fi
    :: my.k == C || !heir -> my.todo = CLOSE
#else
    :: else -> my.todo = CLOSE
#endif
    fi
}

/* `whole`: the chain of the knob, else the entry of the decision. */
inline close() {
    if
    :: my.whole && my.verdict == FOREIGN -> mark_chain(my.k, FOREIGN)
    :: my.whole && my.verdict != FOREIGN -> mark_chain(my.k, CLOSED)
    :: !my.whole -> my.st[my.e] = my.verdict
    fi;
    flush();
    rest(); my.todo = ACT
}

/* --- The processes --------------------------------------------------------------------------------------------------------- */

/* Ledger._load: what a process that starts finds. */
inline load() {
    locked = me + 1;
    copy(my.st, disk); copy(my.good, disk);
    my.stopping = (me == 1);
    begin_undo()
}

/* Everything that a process had in memory is gone. */
inline forget(who) {
    n[who].st[0] = 0; n[who].st[1] = 0; n[who].st[2] = 0;
    n[who].good[0] = 0; n[who].good[1] = 0; n[who].good[2] = 0;
    n[who].r = 0; n[who].now = 0; n[who].goal = 0; n[who].e = 0; n[who].k = 0; n[who].fate[0] = 0; n[who].fate[1] = 0;
    n[who].verdict = 0; n[who].heirs = false; n[who].put = false; n[who].wrote = false; n[who].left = false;
    n[who].whole = false; n[who].ok = false; n[who].stopping = false; n[who].undoing = false;
    n[who].todo = START; n[who].window = 0; n[who].pending = false; locked = 0
}

proctype nicety(bit me) {
    do
#ifdef MUTANT_NO_LOCK
    :: atomic { my.todo == START -> load() }
#else
    :: atomic { my.todo == START && locked == 0 -> load() }
#endif
    :: atomic { my.todo == LOOK_BACK -> look_back() }
    :: atomic { my.todo == CHECK -> check() }
    :: atomic { my.todo == COMPARE -> compare() }
    :: atomic { my.todo == CALL -> call() }
    :: atomic { my.todo == CHECK_AGAIN -> check_again() }
    :: atomic { my.todo == SETTLE -> settle_undo() }
    :: atomic { my.todo == ACT && !tried[0] -> decide(0, P) }
    :: atomic { my.todo == ACT && tried[0] && !tried[1] -> decide(1, P) }
    :: atomic { my.todo == ACT && tried[0] && !tried[1] -> decide(1, C) }
    :: atomic { my.todo == ACT && sweeps > 0 && chain(P) -> sweep(P) }
    :: atomic { my.todo == ACT && sweeps > 0 && chain(C) -> sweep(C) }
    :: atomic { my.todo == ACT -> my.stopping = true; begin_undo() }
    :: atomic { my.todo == RECORD_INTENT -> record_intent() }
    :: atomic { my.todo == READ_BACK -> read_back() }
    :: atomic { my.todo == RECORD_RESULT -> record_result() }
    :: atomic { my.todo == ADOPT -> adopt() }
    :: atomic { my.todo == CLOSE -> close() }
    :: atomic { my.todo == STOP && (chain(P) || chain(C)) -> forget(me) } /* somebody calls `nicety undo` again */
    :: atomic { my.todo == STOP && !chain(P) && !chain(C) -> forget(me); my.todo = FINISHED; finished++; break }
    od
}

inline meanwhile(knob) {
    if :: n[0].window == 1 + knob -> n[0].window = 3 :: else fi;
    if :: n[1].window == 1 + knob -> n[1].window = 3 :: else fi
}

/* An entry that the nicety at work has in memory; if none is at work, that the next one will have. */
#define held(who, knob) (has1(n[who].st, knob) || open(n[who].st[base(knob)]))
#define ours(knob) (locked == 0 -> recorded(knob) : (locked == 1 -> held(0, knob) : held(1, knob)))

/* A value that is set back before ours is recorded as done looks as if ours had not been set. */
#define known(knob) ((disk[1] == DONE && on1 == (knob)) || disk[base(knob)] == DONE)
#define first_on_disk(knob) (has1(disk, knob) -> first[1] : first[base(knob)])
#define set_back(knob, v) (recorded(knob) && !known(knob) && (v) == first_on_disk(knob))

inline set_by_somebody(knob, value) {
    changes--;
    theirs[knob] = (theirs[knob] || (mine(knob) && ours(knob))) && !set_back(knob, value);
    val[knob] = value; natural[knob] = value;
    meanwhile(knob)
}

inline exit(knob) {
    alive[knob] = false; val[knob] = 0; natural[knob] = 0; theirs[knob] = false
}

proctype world() {
end:
    do
    :: atomic { changes > 0 && here(P) && val[P] != O -> set_by_somebody(P, O) }
    :: atomic { changes > 0 && here(P) && val[P] != F -> set_by_somebody(P, F) }
    :: atomic { changes > 0 && alive[C] && val[C] != F -> set_by_somebody(C, F) }
    :: atomic { here(P) && !born -> born = true; alive[C] = true; val[C] = val[P]; natural[C] = natural[P] }
    :: atomic { alive[C] -> exit(C) }
    :: atomic { here(P) -> exit(P) }
    :: atomic { !alive[P] -> alive[P] = true; stranger = true;
            meanwhile(P);
            if :: val[P] = O :: val[P] = A fi; /* what a first write expects, and what an undo expects */
            natural[P] = val[P] }
    :: atomic { faults > 0 && locked != 0 -> /* kill -9 */
            faults--;
            if :: n[locked - 1].pending -> natural[P] = val[P] :: else fi; /* a hole that is known */
            if :: locked == 1 -> forget(0) :: locked == 2 -> forget(1) fi }
#ifdef IDLE
    :: finished < NICETIES /* nobody has to do anything: for runs without end, in which every process moves that can */
#endif
    od
}

init {
    atomic {
        alive[P] = true; new[0] = A; new[1] = B;
        run nicety(0);
        if :: NICETIES > 1 -> run nicety(1) :: else fi;
        run world()
    }
}

ltl undo_ends { <> (finished == NICETIES) }
