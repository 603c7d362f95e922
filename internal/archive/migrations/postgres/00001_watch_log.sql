-- +goose Up
CREATE TABLE kansei_broadcasts (
    room            varchar(64)  NOT NULL,
    broadcast       varchar(32)  NOT NULL,
    revision        integer      NOT NULL,
    final           boolean      NOT NULL,
    began_at        timestamptz  NOT NULL,
    ended_at        timestamptz  NOT NULL,
    duration_ms     bigint       NOT NULL,
    users           integer      NOT NULL,
    guests          integer      NOT NULL,
    peak_users      integer      NOT NULL,
    mean_users      double precision NOT NULL,
    connected_ms    bigint       NOT NULL,
    visible_ms      bigint       NOT NULL,
    played_ms       bigint       NOT NULL,
    comments        integer      NOT NULL,
    estimated       integer      NOT NULL,
    hash            varchar(64)  NOT NULL,
    PRIMARY KEY (room, broadcast)
);

CREATE TABLE kansei_users (
    room            varchar(64)  NOT NULL,
    broadcast       varchar(32)  NOT NULL,
    user_id         varchar(128) NOT NULL,
    revision        integer      NOT NULL,
    name            text         NOT NULL,
    guest           boolean      NOT NULL,
    from_at         timestamptz  NOT NULL,
    to_at           timestamptz  NOT NULL,
    connected_ms    bigint       NOT NULL,
    visible_ms      bigint       NOT NULL,
    played_ms       bigint       NOT NULL,
    waited_ms       bigint       NOT NULL,
    share           double precision NOT NULL,
    connections     integer      NOT NULL,
    estimated       boolean      NOT NULL,
    PRIMARY KEY (room, broadcast, user_id)
);
CREATE INDEX kansei_users_by_user ON kansei_users (user_id);

-- +goose Down
DROP TABLE kansei_users;
DROP TABLE kansei_broadcasts;
